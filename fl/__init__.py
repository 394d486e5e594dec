"""The federation: clients that train, a server that aggregates, and where they run."""

__version__ = "0.1.0"
