"""Layers that fill the slots of networks."""
