"""What the kinds of partition share: hand-out, repair, checks, hold-out and measures of skew."""
