"""The program: ``fednf``, or ``python -m experiments``."""

import os
import signal
import sys
from types import FrameType
from typing import NoReturn


def main() -> None:
    """Run the command line, which is imported here: Ctrl-C may come while torch is loaded."""
    # NumPy's pool of threads, which we have no use for, would forbid to fork workers.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.SIG_IGN:  # as it is under nohup
        signal.signal(signal.SIGINT, _stop)
    from experiments.cli import main

    signal.signal(signal.SIGINT, before)
    main.main()


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    # Not an exception: in the middle of an import, other modules turn one into something else.
    sys.stderr.write("fednf: interrupted\n")
    sys.stderr.flush()
    os._exit(130)


if __name__ == "__main__":
    main()
