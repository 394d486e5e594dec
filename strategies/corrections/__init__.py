"""Strategies that correct what clients drift by, from what they remember of their last rounds."""
