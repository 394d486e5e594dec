"""The contenders of the bench: ways to run the rounds of a job."""
