"""``python -m experiments`` is ``fednf``."""

from experiments.cli import main

if __name__ == "__main__":
    main()
