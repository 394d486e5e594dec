"""The two-client audit of BatchNorm's statistics, wherever and however clients train.

Two clients, one step each; one holds images of pixels 10, the other of pixels 30. Of six frameworks
that were asked, three gave the shared network something else than the mean of what the two had, or
let the second client begin with what was left of the first.
"""

from contextlib import closing, nullcontext

import numpy as np
import pytest
import torch

from fl.config import Experiment
from fl.data import load
from fl.reproducibility.seeds import torch_stream
from fl.server.journal import Journal
from fl.simulation import run
from fl.training import parameters
from fl.vectorized import operators

MOMENTUM = 0.1
IMAGES = {0: 6, 1: 2}
"""By label, of which each client has one; unequal, so that weights show."""
SEQUENTIAL, EAGER = {"engine": "sequential"}, {"engine": "vectorized", "vectorized.level": "eager"}
NATIVE = {"engine": "vectorized", "vectorized.level": "native"}


@pytest.fixture
def knobs(tmp_path):
    labels = np.repeat(list(IMAGES), list(IMAGES.values()))
    images = np.where(labels == 0, 10, 30).astype(np.uint8)[:, None, None, None]
    images = np.broadcast_to(images, (len(labels), 8, 8, 1)).copy()
    images[:, ::2] += 3  # not all alike, or there would be no variance
    path = tmp_path / "audit.npz"
    np.savez(path, x_train=images, y_train=labels, x_test=images, y_test=labels)
    return Experiment.from_flat(
        {
            "data.name": str(path),
            "recipe": "batchnorm",
            "network.depth": 4,
            "network.width": 4,
            "partition.kind": "label-count",
            "partition.labels": 1,
            "partition.clients": 2,
            "partition.min-size": 1,
            "sampling.clients": 2,
            "client.batch-size": 8,
            "rounds": 1,
            "device": "cpu",
        }
    )


def alone(knobs) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what each client's first BatchNorm has after its step, starting from nothing."""
    network, data = (
        parameters.build_network(knobs, torch_stream(knobs.seed, "init")),
        load(knobs.data.name),
    )
    means, variances = [], []
    for label in IMAGES:
        mine = data.train.labels == label
        with torch.no_grad():
            seen = network.module.layers[0].conv(data.inputs(data.train.images[mine]))
        values = seen.transpose(0, 1).flatten(1)
        means.append(MOMENTUM * values.mean(1))
        variances.append(1 - MOMENTUM + MOMENTUM * values.var(1))
    return torch.stack(means), torch.stack(variances)


@pytest.mark.parametrize("policy", ["average", "pooled"])
@pytest.mark.parametrize(
    ("engine", "runtime"),
    [
        (SEQUENTIAL, 1),
        (EAGER, 1),
        pytest.param(NATIVE, 1, marks=pytest.mark.slow),
        pytest.param(SEQUENTIAL, 2, marks=pytest.mark.slow),
        pytest.param(EAGER, 2, marks=pytest.mark.slow),
        pytest.param(SEQUENTIAL, "ray", marks=pytest.mark.slow),
    ],
)
@pytest.mark.usefixtures("rays_leftovers")
def test_the_shared_network_has_what_clients_had_who_began_from_nothing(
    knobs, tmp_path, policy, engine, runtime
):
    if engine == NATIVE and (reason := operators.unavailable_reason()):
        pytest.skip(reason)
    knobs, journal = knobs.replace({**engine, "state.bn": policy}), Journal(tmp_path / "run")
    pool = nullcontext()
    if runtime == "ray":
        pytest.importorskip("ray")
        from fl.simulation.ray_pool import RayPool

        pool = closing(RayPool(size=2))
    with pool as actors:
        run(knobs, journal, pool=actors, workers=2 if runtime == 2 else 1)
    assert [line["steps"] for line in journal.clients()] == [1, 1]
    model = journal.checkpoint().model
    means, variances = alone(knobs)
    weights = torch.tensor([n / 8 for n in IMAGES.values()])
    mean = weights @ means
    spread = weights @ (means - mean).square() if policy == "pooled" else 0
    assert float((means[0] - means[1]).abs().min()) > 0.01
    for name, expected in (("mean", mean), ("var", weights @ variances + spread)):
        found = torch.from_numpy(model[f"layers.0.norm.running_{name}"])
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
