"""The program: ``fednf``, or ``python -m experiments``."""

import sys


def main() -> None:
    """Run the command line; it is imported here, since Ctrl-C may come while torch is loaded."""
    try:
        from experiments import cli
    except KeyboardInterrupt:
        sys.stderr.write("fednf: interrupted\n")
        sys.exit(130)
    cli.main()


if __name__ == "__main__":
    main()
