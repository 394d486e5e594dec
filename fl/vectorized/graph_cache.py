"""Graphs of operators as source code, which the user's cache keeps: tracing one takes seconds."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf, nan
from pathlib import Path

import platformdirs
import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.fx import GraphModule

from fl.reproducibility.files import write_whole
from fl.reproducibility.provenance import code_hash

Program = Callable[..., Sequence[Tensor]]
_NAMES = {"torch": torch, "device": torch.device, "inf": inf, "nan": nan}
"""What the code of a graph may speak of, besides its own."""


@dataclass(frozen=True)
class Graph:
    """Operators without side effects, one after another."""

    code: str
    """Of ``forward(self, *arguments)``, as `torch.fx` writes it."""
    constants: Mapping[str, Tensor]
    """What `self` has, by name."""
    starved: tuple[int, ...] = ()
    """Of every BatchNorm layer, how often it sees single values."""

    @classmethod
    def of(cls, module: GraphModule, starved: Sequence[int] = ()) -> "Graph":
        """Return what a module of `torch.fx` does."""
        return cls(module.code, dict(module.named_buffers()), tuple(starved))

    def module(self) -> nn.Module:
        """Return a module that does it."""
        names = dict(_NAMES)
        exec(self.code, names)  # ours: what this process, or this user's last, has traced
        module = type("Pass", (nn.Module,), {"forward": names["forward"]})()
        for name, constant in self.constants.items():
            module.register_buffer(name, constant)
        return module

    def keep(self, path: Path) -> None:
        """Write it down."""
        told = {"code": self.code, "starved": " ".join(map(str, self.starved))}
        constants = {name: t.clone().contiguous() for name, t in self.constants.items()}
        write_whole(path, save(constants, told))


def kept(path: Path) -> Graph:
    """Return the graph of a file.

    Raises:
        Exception: there is none, or something else; of many kinds.
    """
    with safe_open(path, framework="pt") as file:
        told = file.metadata()
        constants = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dict
        return Graph(told["code"], constants, tuple(map(int, told["starved"].split())))


def place(name: str, arguments: Sequence[Tensor]) -> Path:
    """Return where the graph of this name, these arguments, our code and PyTorch's is kept."""
    told = f"{name} {[form(t) for t in arguments]} {torch.__version__} {code_hash()}"
    digest = hashlib.sha256(told.encode()).hexdigest()
    return platformdirs.user_cache_path("fednf") / f"graph-{digest[:16]}.safetensors"


def form(tensor: Tensor) -> tuple[object, ...]:
    """Return what a program is made for: sizes, strides, type and device."""
    cuda = tensor.device.type == "cuda"
    device = torch.cuda.get_device_name(tensor.device) if cuda else tensor.device.type
    return tuple(tensor.shape), tensor.stride(), tensor.dtype, device
