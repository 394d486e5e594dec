"""Traced graphs as source code, kept in the user's cache, because tracing one takes seconds."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf, nan
from pathlib import Path

import platformdirs
import safetensors.torch
import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.fx import GraphModule

from fl.reproducibility.files import write_whole
from fl.reproducibility.provenance import code_hash

Program = Callable[..., Sequence[Tensor]]
_NAMES = {"torch": torch, "device": torch.device, "inf": inf, "nan": nan}
"""The global names that the code of a graph may use."""


@dataclass(frozen=True)
class Graph:
    """Operators without side effects, one after another."""

    code: str
    """Source code of ``forward(self, *arguments)``, as `torch.fx` writes it."""
    constants: Mapping[str, Tensor]
    """The tensors that `code` reads from `self`, by attribute name."""
    single_value_steps: tuple[int, ...] = ()
    """For every BatchNorm layer, how many of its calls in a pass are given examples that have one
    value a channel."""

    @classmethod
    def of(cls, module: GraphModule, single_value_steps: Sequence[int] = ()) -> "Graph":
        """Return what a module of `torch.fx` does."""
        return cls(module.code, dict(module.named_buffers()), tuple(single_value_steps))

    def module(self) -> nn.Module:
        """Return a module that does what the graph does."""
        names = dict(_NAMES)
        # Running this code is as safe as importing a cached .pyc file. It was written by `torch.fx`
        # in this process or in an earlier one of the same user, from operators only, and is read
        # from the user's own cache, never from a message or a data set. Whoever can write there can
        # change the user's Python packages, too.
        exec(self.code, names)
        module = type("Pass", (nn.Module,), {"forward": names["forward"]})()
        for name, constant in self.constants.items():
            module.register_buffer(name, constant)
        return module

    def save(self, path: Path) -> None:
        """Write the graph to a safetensors file, whole or not at all."""
        counts = " ".join(map(str, self.single_value_steps))
        constants = {name: t.clone().contiguous() for name, t in self.constants.items()}
        metadata = {"code": self.code, "single_value_steps": counts}
        write_whole(path, safetensors.torch.save(constants, metadata))


def load(path: Path) -> Graph:
    """Return the graph that `Graph.save` wrote to a file.

    Raises:
        Exception: there is no file, or it holds something else; of many kinds.
    """
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        constants = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dict
        counts = map(int, metadata["single_value_steps"].split())
        return Graph(metadata["code"], constants, tuple(counts))


def path_for(name: str, arguments: Sequence[Tensor]) -> Path:
    """Return the path of a graph: it depends on its name, its arguments, our code and PyTorch."""
    signatures = [signature(t) for t in arguments]
    key = f"{name} {signatures} {torch.__version__} {code_hash()}"
    digest = hashlib.sha256(key.encode()).hexdigest()
    return platformdirs.user_cache_path("fednf") / f"graph-{digest[:16]}.safetensors"


def signature(tensor: Tensor) -> tuple[object, ...]:
    """Return what a program is specialized to: sizes, strides, type and device of a tensor."""
    cuda = tensor.device.type == "cuda"
    device = torch.cuda.get_device_name(tensor.device) if cuda else tensor.device.type
    return tuple(tensor.shape), tensor.stride(), tensor.dtype, device
