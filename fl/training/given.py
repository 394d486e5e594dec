"""Weights that a run starts from instead of a network's own initial ones."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from fl.config import Run
from fl.config.parsing import ConfigError
from fl.config.run import sha256_of, weights_file
from fl.reproducibility.checking import Damaged, read_checked
from fl.reproducibility.errors import in_words
from fl.training.parameters import FlatNetwork

_SHOWN = 3
"""Names that a message has at most."""


def start_from(network: FlatNetwork, run: Run) -> None:
    """Load the weights that a run starts from: the network's tensors, all of them and no others.

    Numbers of other types, such as float16, become the network's.

    Raises:
        ConfigError: there is no such file, it is not the one that the experiment was made with, or
            its tensors are not the network's.
    """
    path = weights_file(run.start_from)
    if not path.is_file():
        odd = path.parent if path.name == "model.safetensors" else path
        what = f"has no {path.name}; finish that run" if odd.is_dir() else "is not here"
        raise ConfigError(
            f"run.start-from={run.start_from}: {odd} {what}; expected the folder of a finished run "
            f"or a .safetensors file (seen from {Path.cwd()})"
        )
    if (found := sha256_of(path)) != run.start_sha256:
        raise ConfigError(
            f"run.start-from={run.start_from}: its SHA-256 was {run.start_sha256[:12]}…, is "
            f"{found[:12]}…; put the file back, or choose another folder"
        )
    try:
        read_checked(path)
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dict
    except Damaged as error:
        raise ConfigError(f"run.start-from={run.start_from}: {path} is damaged: {error}") from None
    except Exception as error:
        raise ConfigError(f"can't read {path} as safetensors: {in_words(error)}") from None
    if said := difference(tensors, network.tensors()):
        raise ConfigError(f"run.start-from={run.start_from}: {said}")
    network.load(tensors)


def difference(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str | None:
    """Say in one line how tensors differ from a network's in names, shapes and finiteness."""
    parts = [
        _listed("missing", [name for name in wanted if name not in given]),
        _listed("unexpected", [name for name in given if name not in wanted]),
    ]
    both = [name for name in wanted if name in given]
    shapes = {name: (tuple(given[name].shape), tuple(wanted[name].shape)) for name in both}
    odd = [f"{name} {a}, here {b}" for name, (a, b) in shapes.items() if a != b]
    infinite = [name for name in both if not torch.isfinite(given[name]).all()]
    parts += [_listed("of other shapes", odd), _listed("not finite", infinite)]
    return "; ".join(part for part in parts if part) or None


def _listed(what: str, names: list[str]) -> str:
    """Return how many names there are and the first of them; empty for none."""
    more = ", …" if len(names) > _SHOWN else ""
    return f"{len(names)} tensors {what} ({', '.join(names[:_SHOWN])}{more})" if names else ""
