"""The plain FedAvg of `examples/` is the reference: the engine ends with the same bytes."""

import runpy
from pathlib import Path

import pytest
import torch

import fl
from fl.config import Experiment
from fl.server.journal import Journal, model_sha256
from fl.simulation import run

PLAIN = Path(fl.__file__).parent.parent / "examples" / "plain_fedavg.py"


@pytest.mark.parametrize(
    ("rounds", "sampled"), [(1, 2), pytest.param(3, 10, marks=pytest.mark.slow)]
)
def test_the_engine_ends_with_the_network_of_the_plain_fedavg(tmp_path, capsys, rounds, sampled):
    onednn = torch.backends.mkldnn.enabled
    try:
        federate = runpy.run_path(str(PLAIN))["federate"]
        federate.__globals__["SAMPLED"] = sampled
        plain = federate(rounds)
    finally:
        torch.backends.mkldnn.enabled = onednn
    knobs = Experiment(rounds=rounds, engine="sequential", device="cpu")
    assert knobs.sampling.clients == 10  # what the file says
    knobs = knobs.replace({"sampling.clients": sampled})
    result = run(knobs, Journal(tmp_path))
    assert result["model_sha256"] == model_sha256(plain)
    said = capsys.readouterr().out.splitlines()
    accuracies = [line["test_accuracy"] for line in Journal(tmp_path).rounds()[1:]]
    assert said == [f"round {n}: accuracy {a:.3f}" for n, a in enumerate(accuracies, start=1)]


def test_a_newcomer_reads_it_in_one_sitting():
    lines = PLAIN.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 110
    others = ("import flwr", "from fl.server", "from fl.client", "from fl.training")
    assert not any(line.startswith(others) for line in lines)
