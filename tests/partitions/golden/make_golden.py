"""Writes dirichlet.json: what flwr-datasets 0.6.1 deals out.

Run it from this folder in a throw-away environment, here one outside of the repository:

    python -m venv ~/golden && ~/golden/bin/pip install flwr-datasets==0.6.1
    FLWR_TELEMETRY_ENABLED=0 HF_DATASETS_OFFLINE=1 ~/golden/bin/python make_golden.py

flwr-datasets keeps its indices in a private dictionary; only this script looks into it.
"""

import hashlib
import json
import warnings
from pathlib import Path

import datasets
import numpy as np
from flwr_datasets.partitioner import DirichletPartitioner

# clients, alpha, min_size, seed
LARGE = [
    (10, 0.1, 10, 1),
    (100, 0.3, 10, 1),
    (100, 0.1, 10, 0),  # returns after 3 tries
    (100, 0.1, 10, 3),  # returns after 11 tries, the last it makes
    (100, 0.1, 10, 9),  # raises; a twelfth try would do
    (1000, 1.0, 10, 6),
    (1000, 0.3, 0, 1),
    (1000, 0.3, 10, 1),  # raises
    (1000, 0.1, 1, 1),  # raises
    (50, 1e-9, 0, 1),
    (50, 1e6, 10, 1),
]
SMALL = [
    ([7, -1, 3, 3, 7, 7, -1, 3, 7, 3, -1, 7], 3, 0.5, 1, 1),
    ([2, 2, 2, 2, 2], 1, 1.0, 5, 1),
]


def synthetic(examples: int) -> np.ndarray:
    """Ten uneven classes, hashed from the index: needs no generator, not in order of class."""
    return (np.arange(examples) * 2654435761 >> 16) % 64 % 10


def deal(
    labels: np.ndarray, clients: int, alpha: float, min_size: int, seed: int
) -> list[list[int]]:
    """What flwr-datasets gives each client; nothing if it gives up."""
    partitioner = DirichletPartitioner(
        clients, "label", alpha, min_size, self_balancing=False, shuffle=True, seed=seed
    )
    partitioner.dataset = datasets.Dataset.from_dict({"label": labels})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one for each try that is not the last
        try:
            partitioner.load_partition(0)
        except ValueError:
            return []
    return [partitioner._partition_id_to_indices[client] for client in range(clients)]


def fingerprint(parts: list[list[int]]) -> str:
    """SHA-256 of the little-endian 64-bit indices of all clients, one after the other."""
    flat = [index for part in parts for index in part]
    return hashlib.sha256(np.array(flat, dtype="<i8").tobytes()).hexdigest()


def main() -> None:
    """Deal every case and write what came out, a line a case."""
    lines = []
    for *knobs, seed in LARGE:
        parts = deal(synthetic(50_000), *knobs, seed)
        sizes = [len(part) for part in parts]
        lines.append({"knobs": knobs, "seed": seed, "sizes": sizes, "sha256": fingerprint(parts)})
    for labels, *knobs, seed in SMALL:
        parts = deal(np.array(labels), *knobs, seed)
        lines.append({"knobs": knobs, "seed": seed, "labels": labels, "parts": parts})
    target = Path(__file__).with_name("dirichlet.json")
    target.write_text("[\n" + ",\n".join(json.dumps(line) for line in lines) + "\n]\n")


if __name__ == "__main__":
    main()
