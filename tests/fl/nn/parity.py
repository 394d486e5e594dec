"""Parity with a reference whose weights nobody stores: both sides fill theirs by name.

A golden file in `tests/fl/nn/golden/` holds what a reference network made of it: its logits and, a
parameter, its gradient's norm and its gradient's projection on a fixed direction. All in double
precision. `tools/make_timm_golden.py` makes them.
"""

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

GOLDEN = Path(__file__).parent / "golden"


def values(name: str, shape: tuple[int, ...]) -> Tensor:
    """Return a tensor of float64 that only depends on its name and shape.

    It is uniform: of mean 1 for gains, scales and running variances, whose values lie in
    [0.5, 1.5]; of mean 0 for all else, with biases, running means and images in [-0.5, 0.5] and
    weights of variance 1 / fan-in.
    """
    uniform = np.random.default_rng(zlib.crc32(name.encode())).random(shape) - 0.5
    kind = name.rpartition(".")[2]
    if "gain" in kind or kind == "running_var" or (kind == "weight" and len(shape) == 1):
        uniform += 1
    elif kind == "weight":
        uniform *= math.sqrt(12 / math.prod(shape[1:]))
    return torch.as_tensor(uniform)


@dataclass(frozen=True)
class Fingerprint:
    """What a network makes of given images: arrays, so that a file can hold it."""

    shape: np.ndarray
    """Of the images."""
    logits: np.ndarray
    names: np.ndarray
    """Of the parameters, as the reference calls them, sorted."""
    norms: np.ndarray
    """Of the parameters' gradients."""
    projections: np.ndarray
    """Of the parameters' gradients on directions of norm 1."""

    def save(self, name: str) -> None:
        """Write the golden file of a network."""
        np.savez_compressed(GOLDEN / f"{name}.npz", **vars(self))

    @classmethod
    def load(cls, name: str) -> "Fingerprint":
        """Read the golden file of a network."""
        with np.load(GOLDEN / f"{name}.npz") as arrays:
            return cls(**arrays)


def fingerprint(
    net: nn.Module, shape: tuple[int, ...], reference: Callable[[str], str] = str
) -> Fingerprint:
    """Fill a network by name and return its fingerprint, in evaluation mode.

    Args:
        net: images to logits; its state changes.
        shape: (batch, channels, *space) of the images.
        reference: what the reference calls a tensor of the network's state.
    """
    net.double().eval()
    for name, tensor in net.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(values(reference(name), tuple(tensor.shape)))
    logits = net(values("images", shape))
    (logits * values("loss", tuple(logits.shape))).sum().backward()
    gradients = {reference(name): p.grad for name, p in net.named_parameters()}
    names = sorted(gradients)
    return Fingerprint(
        shape=np.array(shape),
        logits=logits.detach().numpy(),
        names=np.array(names),
        norms=np.array([gradients[name].norm().item() for name in names]),
        projections=np.array([_projection(name, gradients[name]) for name in names]),
    )


def _projection(name: str, gradient: Tensor) -> float:
    direction = values(f"{name}.direction", tuple(gradient.shape))
    return ((gradient * direction).sum() / direction.norm()).item()


def assert_same(found: Fingerprint, expected: Fingerprint, rtol: float = 1e-6) -> None:
    """Compare logits to their largest, and gradients to their norms."""
    assert found.names.tolist() == expected.names.tolist()
    assert np.abs(found.logits - expected.logits).max() <= rtol * np.abs(expected.logits).max()
    assert expected.norms.min() > 0, "a parameter that gets no gradient is not compared"
    for ours, theirs in [
        (found.norms, expected.norms),
        (found.projections, expected.projections),
    ]:
        errors = np.abs(ours - theirs) / expected.norms
        assert errors.max() <= rtol, expected.names[errors.argmax()]
