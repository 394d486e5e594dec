"""Traced graphs compiled ahead of time (AOTInductor) into programs, kept in the user's cache.

A program's folder is named by a hash of its graph and of all else that it depends on. PyTorch's
compiler runs once for each on a machine: a process that needs the same program meanwhile waits.
"""

import fcntl
import hashlib
import os
import shutil
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs
import torch
from torch import Tensor

from fl.reproducibility.temporary import MAKING, temporary_folder
from fl.vectorized.graph_cache import Graph, Program, signature
from fl.vectorized.operators.library import compiler, processor
from fl.vectorized.torch_internals import compile_package, load_package

# By default, Inductor puts what it compiles on the way into the folder for temporary files.
os.environ.setdefault(
    "TORCHINDUCTOR_CACHE_DIR", str(platformdirs.user_cache_path("fednf") / "inductor")
)
_OPTIONS = {"custom_op_default_layout_constraint": "flexible_layout"}
"""Settings of the compiler. Our operators take tensors of any layout; without this one the compiler
would copy an argument that two of them use, once for each."""


def compile_ahead_of_time(graph: Graph, arguments: tuple[Tensor, ...]) -> Program:
    """Return a program that does what a graph does, for tensors of the same shapes and types.

    It takes contiguous tensors, and does not check that they are.

    Args:
        graph: what to do.
        arguments: tensors like those that it is called with.
    """
    folder = _program_folder(graph, arguments)
    with _locked(folder):
        try:
            run = load_package(folder)
        except RuntimeError:  # there is none, or this machine can't load it
            shutil.rmtree(folder, ignore_errors=True)
            _compile(graph, arguments, folder)
            run = load_package(folder)
    return lambda *arguments: run(list(arguments))


def _program_folder(graph: Graph, arguments: tuple[Tensor, ...]) -> Path:
    """Return the folder of a program; it depends on graph, PyTorch, compiler and processor."""
    digest = hashlib.sha256(graph.code.encode())
    for name, constant in sorted(graph.constants.items()):
        digest.update(f"{name} {signature(constant)}".encode())
        digest.update(constant.numpy(force=True).tobytes())
    signatures = [signature(argument) for argument in arguments]
    made_by = torch.__version__, _OPTIONS, torch.get_num_threads(), *compiler(), processor()
    digest.update(f"{signatures} {made_by}".encode())
    return platformdirs.user_cache_path("fednf") / f"pass-{digest.hexdigest()[:16]}"


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Wait until no other process compiles the program of this folder, and keep others out."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _compile(graph: Graph, arguments: tuple[Tensor, ...], folder: Path) -> None:
    """Compile a program and put it into a folder, whole or not at all."""
    making = temporary_folder(folder.parent, f"{MAKING}pass-")
    with making as made, warnings.catch_warnings():
        # PyTorch's exporter triggers deprecation warnings of its own.
        warnings.filterwarnings("ignore", r".*LeafSpec", FutureWarning)
        program = torch.export.export(graph.module(), arguments)
        package = made / "pass.pt2"
        compile_package(program, package, _OPTIONS)
        with zipfile.ZipFile(package) as file:
            file.extractall(made / "pass")
        (made / "pass").rename(folder)
