"""Contenders of the bench: ways of playing the rounds of a job."""
