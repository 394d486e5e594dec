"""Configure PyTorch, the C library and the garbage collector in a process that trains."""

import ctypes
import gc
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch

_KEPT_BYTES = 2**30
"""Allocations up to which the C library keeps what was given back to it, and how much at the end of
its heap."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # from glibc's malloc.h


def prepare_process() -> None:
    """Prepare this process for training: one thread, and memory that is kept between steps.

    On one thread small steps are faster, and results don't depend on the number of cores. Memory
    that goes back to the kernel after every step has to be cleared again before the next one: of a
    pass of 160 images of the bench's `cnn`, 8 to 25 % of the time. On a GPU cuDNN keeps to what
    gives the same bytes again, which took no longer on an H100.
    """
    if torch.get_num_threads() != 1:
        torch.set_num_threads(1)
    torch.backends.cudnn.deterministic = True  # pyrefly: ignore
    _keep_memory()


@cache
def _keep_memory() -> None:
    """Tell glibc; other C libraries have no such call, and go on as they do."""
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    set_option = getattr(library, "mallopt", lambda option, value: 0)
    # Old ones refuse the first; the second alone would be worse than none.
    if set_option(_M_MMAP_THRESHOLD, _KEPT_BYTES):
        set_option(_M_TRIM_THRESHOLD, _KEPT_BYTES)


def can_fork() -> bool:
    """Return whether a fork of this process would work.

    A fork starts at once and shares the memory of all that is loaded here, but it has only the
    thread that forked. Threads that Python started allow for that. Threads of other libraries,
    such as pools for arithmetic, do not: the fork would wait for them for ever. Nor can a GPU's
    context be forked.
    """
    if sys.platform != "linux" or torch.cuda.is_initialized():
        return False
    pythons = {str(thread.native_id) for thread in threading.enumerate()}
    pythons.add(str(threading.get_native_id()))  # in a fork, Python 3.11 knows its parent's
    return pythons.issuperset(os.listdir("/proc/self/task"))


@contextmanager
def hidden_from_gc() -> Iterator[None]:
    """Hide all present objects from Python's garbage collector, here and in forks.

    In the middle of a round it would look at 200,000 to 350,000 objects of libraries, none of which
    go: 0.1 s each time. What somebody else has hidden stays so.
    """
    ours = not gc.get_freeze_count()
    gc.freeze()
    try:
        yield
    finally:
        if ours:
            gc.unfreeze()
