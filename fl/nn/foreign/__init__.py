"""Networks that are not ours: what their layers are, what takes their place, and who makes them."""
