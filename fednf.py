"""The program ``fednf``, also as ``python -m fednf``: it works in any folder.

A folder in which somebody works may have a package `experiments` or `strategies` of its own, which
Python finds first there. Ours are therefore asked for by where they are.
"""

from fl.reproducibility import shadowing

shadowing.prefer(["experiments", *shadowing.NEEDED])


def main() -> None:
    """Run the command line."""
    from experiments.__main__ import main

    main()


if __name__ == "__main__":
    main()
