"""A user's own project: a folder that works at once, also as a Flower app."""
