"""Strategies whose server takes the mean of updates for a gradient, and moves by an optimizer."""
