"""All randomness is a function of (seed, path): one seed, independent streams, no global state."""

import hashlib

import numpy as np
import torch

Step = int | str


def stream(seed: int, *path: Step) -> np.random.Generator:
    """Return the random stream at a path, for example ``stream(1, "client", 3, "round", 7)``.

    The generator is PCG64, seeded with the SHA-256 of the seed and the path's steps, each with its
    type and length, so that no two paths share a stream: ("ab", "c") is not ("a", "bc").
    """
    digest = hashlib.sha256()
    for step in (seed, *path):
        digest.update(f"{type(step).__name__}:{len(str(step))}:{step};".encode())
    return np.random.default_rng(int.from_bytes(digest.digest(), "little"))


def torch_stream(seed: int, *path: Step) -> torch.Generator:
    """Return the stream at a path as a torch generator on the CPU, whatever the training device."""
    return torch.Generator().manual_seed(int(stream(seed, *path).integers(2**63)))
