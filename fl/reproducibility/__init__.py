"""Same seed, same bytes: seeds by path, one thread, provenance, and files written whole."""
