import numpy as np
import pytest

from fl.server.journal import Journal
from fl.simulation import run
from tests.conftest import ENGINES

QUICK = {"partition.kind": "iid", "partition.clients": 50, "client.batch-size": 8}
"""100 images a client: enough steps to drift from the global network."""


@pytest.mark.parametrize("engine", ENGINES)
def test_without_mu_fedprox_is_fedavg_bit_for_bit(tiny, tmp_path, engine):
    flat = {**QUICK, **ENGINES[engine], "recipe": "batchnorm", "strategy.kind": "fedprox"}
    prox = run(tiny({**flat, "strategy.mu": 0.0}), Journal(tmp_path / "prox"))
    mean = run(tiny({**flat, "strategy.kind": "fedavg"}), Journal(tmp_path / "mean"))
    pulled = run(tiny({**flat, "strategy.mu": 0.1}), Journal(tmp_path / "pulled"))
    assert prox["model_sha256"] == mean["model_sha256"]
    assert prox["final_loss"] == mean["final_loss"]
    assert pulled["model_sha256"] != mean["model_sha256"]


def test_the_stronger_the_pull_the_shorter_the_way(tiny, tmp_path):
    """From the same start on the same batches; clipping off, so that only μ differs."""
    means = []
    for mu in (0.0, 1.0, 10.0):
        flat = {"strategy.kind": "fedprox", "strategy.mu": mu, "client.clip": "none", "rounds": 1}
        journal = Journal(tmp_path / str(mu))
        run(tiny({**QUICK, **flat}), journal)
        means.append(np.mean([account["update_norm"] for account in journal.clients()]))
    assert means[0] > 1.1 * means[1] > 1.21 * means[2] > 0
