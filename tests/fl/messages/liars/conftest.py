import numpy as np
import pytest

from fl.config import Experiment


@pytest.fixture
def small(tmp_path):
    """Make experiments of milliseconds: 60 pictures of 8 x 8 to three clients."""
    rng = np.random.default_rng(1)
    labels = {"train": np.arange(60) % 3, "test": np.arange(12) % 3}
    arrays = {f"{split}_labels": found for split, found in labels.items()}
    for split, found in labels.items():
        pixels = rng.integers(0, 200, (len(found), 8, 8)) + 20 * found[:, None, None]
        arrays[f"{split}_images"] = pixels.astype(np.uint8)
    np.savez(tmp_path / "small.npz", **arrays)
    flat = {
        "data.name": str(tmp_path / "small.npz"),
        "device": "cpu",
        "network.depth": 3,
        "network.width": 4,
        "partition.clients": 3,
        "partition.kind": "iid",
        "partition.held-out": 0.2,
        "sampling.clients": 3,
        "client.batch-size": 8,
        "rounds": 1,
    }

    def make(more=None) -> Experiment:
        return Experiment.from_flat({**flat, **(more or {})})

    return make
