"""Fair tuning: the same candidates and the same rungs for every contender, on validation images."""
