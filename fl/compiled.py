"""Flat graphs compiled ahead of time into programs, which the user's cache keeps.

A program is found again by the graph that it was made of, so a network is traced in every process,
but PyTorch's compiler is called once on a machine.
"""

import hashlib
import os
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import platformdirs
import torch
from torch import Tensor
from torch.fx import GraphModule

from fl.files import write_whole
from fl.native.library import processor

# Inductor's own place for what it compiles on the way is a folder for temporary files.
os.environ.setdefault(
    "TORCHINDUCTOR_CACHE_DIR", str(platformdirs.user_cache_path("fednf") / "inductor")
)

Program = Callable[..., Sequence[Tensor]]


def compiled(graph: GraphModule, arguments: tuple[Tensor, ...]) -> Program:
    """Return a program that does what a graph does, for tensors of the same forms as these.

    It takes them contiguous, and does not look whether they are.

    Args:
        graph: of operators without side effects.
        arguments: what it is called with.
    """
    place = _place(graph, arguments)
    if not place.is_file():
        write_whole(place, _compile(graph, arguments))
    loader = torch._inductor.aoti_load_package(str(place)).loader
    return lambda *arguments: loader.run(list(arguments))  # its own call reads JSON each time


def _place(graph: GraphModule, arguments: tuple[Tensor, ...]) -> Path:
    """Return where the program of this graph, PyTorch and processor is."""
    digest = hashlib.sha256(graph.code.encode())
    for name, constant in sorted(graph.named_buffers()):
        digest.update(name.encode() + constant.numpy(force=True).tobytes())
    forms = [(t.shape, t.stride(), t.dtype, t.device.type) for t in arguments]
    digest.update(f"{forms} {torch.__version__} {processor()}".encode())
    return platformdirs.user_cache_path("fednf") / f"pass-{digest.hexdigest()[:16]}.pt2"


def _compile(graph: GraphModule, arguments: tuple[Tensor, ...]) -> bytes:
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        # PyTorch's exporter warns of what it does itself.
        warnings.filterwarnings("ignore", r".*LeafSpec", FutureWarning)
        package = Path(folder) / "pass.pt2"
        program = torch.export.export(graph, arguments)
        torch._inductor.aoti_compile_and_package(program, package_path=str(package))
        return package.read_bytes()
