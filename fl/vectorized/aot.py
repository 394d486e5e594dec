"""Flat graphs compiled ahead of time into programs, which the user's cache keeps.

A program is found again by the graph that it was made of. PyTorch's compiler is called once on a
machine: who comes meanwhile waits.
"""

import fcntl
import hashlib
import os
import shutil
import tempfile
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs
import torch
from torch import Tensor

from fl.vectorized.graph_cache import Graph, Program, form
from fl.vectorized.operators.library import compiler, processor

# Inductor's own place for what it compiles on the way is a folder for temporary files.
os.environ.setdefault(
    "TORCHINDUCTOR_CACHE_DIR", str(platformdirs.user_cache_path("fednf") / "inductor")
)
_OPTIONS = {"custom_op_default_layout_constraint": "flexible_layout"}
"""Our operators take any layout; else each would get a copy of its own of what two of them use."""


def compiled(graph: Graph, arguments: tuple[Tensor, ...]) -> Program:
    """Return a program that does what a graph does, for tensors of the same forms as these.

    It takes them contiguous, and does not look whether they are.

    Args:
        graph: what to do.
        arguments: what it is called with.
    """
    folder = _place(graph, arguments)
    with _alone(folder):
        try:
            loader = _load(folder)
        except RuntimeError:  # there is none, or none that this machine can load
            shutil.rmtree(folder, ignore_errors=True)
            _compile(graph, arguments, folder)
            loader = _load(folder)
    return lambda *arguments: loader.run(list(arguments))


def _load(folder: Path) -> torch._C._aoti.AOTIModelPackageLoader:
    # Not `torch._inductor.aoti_load_package`: that unpacks a copy into the folder for temporary
    # files, where it stays if the process is killed, and its program reads JSON at every call.
    return torch._C._aoti.AOTIModelPackageLoader(str(folder), "model", False, 1, -1)


def _place(graph: Graph, arguments: tuple[Tensor, ...]) -> Path:
    """Return where the program of this graph, PyTorch, compiler and processor is."""
    digest = hashlib.sha256(graph.code.encode())
    for name, constant in sorted(graph.constants.items()):
        digest.update(f"{name} {form(constant)}".encode())
        digest.update(constant.numpy(force=True).tobytes())
    forms = [form(argument) for argument in arguments]
    made_by = torch.__version__, _OPTIONS, torch.get_num_threads(), *compiler(), processor()
    digest.update(f"{forms} {made_by}".encode())
    return platformdirs.user_cache_path("fednf") / f"pass-{digest.hexdigest()[:16]}"


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait until no other process makes a program of that name."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _compile(graph: Graph, arguments: tuple[Tensor, ...], folder: Path) -> None:
    """Make a program and put it into a folder, whole or not at all."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as made, warnings.catch_warnings():
        # PyTorch's exporter warns of what it does itself.
        warnings.filterwarnings("ignore", r".*LeafSpec", FutureWarning)
        program = torch.export.export(graph.module(), arguments)
        package = Path(made) / "pass.pt2"
        with torch._functorch.config.patch(_OPTIONS):
            torch._inductor.aoti_compile_and_package(program, package_path=str(package))
        with zipfile.ZipFile(package) as file:
            file.extractall(Path(made) / "pass")
        (Path(made) / "pass").rename(folder)
