"""What the laws of partition share."""
