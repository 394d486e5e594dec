"""What numbers carry: endpoints, paired comparisons, verdicts, power. Needs the extra `stats`."""
