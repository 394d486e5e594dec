import numpy as np
import pytest
from flwr.app import ConfigRecord

from fl.messages import records
from fl.server.journal import Journal
from fl.simulation import InlineGrid, run
from strategies.fedavg import FedAvg, Sampler
from strategies.fedprox import MU, FedProx

QUICK = {"partition.kind": "iid", "partition.clients": 50, "client.batch-size": 8}
"""100 images a client: enough steps to drift from the global network."""


def requests(strategy: FedAvg, grid: InlineGrid) -> list:
    network = records.pack_arrays({"w": np.zeros(2, np.float32)})
    return list(strategy.configure_train(3, network, ConfigRecord(), grid))


@pytest.mark.parametrize("mu", [0.0, 0.25])
def test_mu_travels_with_the_request_and_nothing_else_changes(tiny, mu):
    nodes = {partition: 2 + partition for partition in range(5)}
    sampler = Sampler(3, nodes, lambda number: range(5), np.random.default_rng)
    grid = InlineGrid(tiny())
    plain = requests(FedAvg(sampler), grid)
    pulled = requests(FedProx(sampler, mu=mu), grid)
    found = [records.read_request(m.content) for m in pulled]
    assert [(request.round, request.config[MU]) for request in found] == [(3, mu)] * 3
    assert [m.metadata.dst_node_id for m in pulled] == [m.metadata.dst_node_id for m in plain]


def test_without_mu_fedprox_is_fedavg_bit_for_bit(tiny, tmp_path):
    flat = {**QUICK, "recipe": "batchnorm", "strategy.kind": "fedprox"}
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
