"""Networks with slots."""
