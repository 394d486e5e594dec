"""Batches of one: what skew costs there, and which statistics make BatchNorm fail."""

import csv
import io
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.special import logit
from scipy.stats import ttest_1samp

import fl
from experiments.studies.answer import ANSWER, judged, mechanism
from experiments.studies.answer.rows import Ended
from experiments.studies.answer.tables import micro_batches
from experiments.studies.answer.tables.words import NAMES
from fl.data import load
from fl.nn import BatchNorm
from fl.server.journal import Journal

TABLES = {"batch": "answer-batch", "batch/others": "answer-batch-others",
          "batch/even": "answer-batch-even", "batch/instance": "answer-batch-instance"}  # fmt: skip
LEVELS = {"nf": 0.5, "batchnorm": 0.14, "zc-swish": 0.4, "salunet": 0.3, "instancenorm": 0.35}
"""Accuracies at alpha 1."""
LEFT = {"nf": 0.8, "batchnorm": 0.8, "zc-swish": 0.8, "salunet": 0.5}
"""What that is of the lead over guessing on even clients."""


@pytest.fixture
def runs(monkeypatch, tmp_path):
    """Tables of all runs at batches of one, by folder, as `judged` finds them."""
    rng, found = np.random.default_rng(0), {}
    for name, study in TABLES.items():
        folder = tmp_path / name
        folder.mkdir()
        (folder / "runs.csv").touch()
        knobs = [one.to_flat() for one in ANSWER[study]["full"]().experiments]
        for k in knobs:
            lead = LEVELS[k["recipe"]] - 0.1
            lead = lead / LEFT[k["recipe"]] if name == "batch/even" else lead
            found.setdefault(folder, []).append(Ended(k, 0.1 + lead + rng.normal(0, 0.002)))
    monkeypatch.setattr(judged, "ended", found.__getitem__)
    return found


def test_what_skew_leaves_is_told_with_paired_differences(runs, tmp_path):
    told = judged.at_one(tmp_path)
    head, _, *lines = micro_batches.skew(told)
    assert head.startswith("| contender | even | α 1 | lost | less NF, even | less NF, α 1 |")
    rows = {line.split(" | ")[0].strip("| "): line.split(" | ")[1:] for line in lines}
    assert list(rows) == [NAMES[n] for n in ("nf", "bn-average", "zc-swish", "salunet")]
    ys = {
        name: [np.array(list(of[name].values())) for of in told.values()] for name in told["even"]
    }
    for name in ("bn-average", "zc-swish", "salunet"):
        row, (even, skewed), nf = rows[NAMES[name]], ys[name], ys["nf"]
        assert row[:3] == [f"{100 * y.mean():.1f}" for y in (even, skewed, even - skewed)]
        assert row[3:5] == [as_told(even - nf[0]), as_told(skewed - nf[1])]
        assert row[5] == as_told(even - skewed - (nf[0] - nf[1]))
        kept = logit(skewed) - logit(even) - logit(nf[1]) + logit(nf[0])
        assert row[6] == as_told(kept / 100, digits=2)
        assert row[7].startswith("8")
    assert rows[NAMES["nf"]][3:7] == [""] * 4
    assert rows["SaluNet"][5].startswith("+"), "half of SaluNet's lead is lost, a fifth of NF's"


def as_told(d: np.ndarray, digits: int = 1) -> str:
    low, high = ttest_1samp(d, 0).confidence_interval(0.95)
    mean, low, high = (f"{100 * value:+.{digits}f}" for value in (d.mean(), low, high))
    return f"{mean} [{low}, {high}]".replace("-", "−")


@pytest.mark.parametrize("name", TABLES)
def test_a_block_that_lacks_a_run_is_not_told(runs, tmp_path, name):
    """On even clients and of instance normalization blocks are told as they come."""
    runs[tmp_path / name].pop()
    told = judged.at_one(tmp_path)
    if name == "batch/instance":
        assert len(judged.with_one(tmp_path)["instancenorm"]) == 7
    elif name == "batch/even":
        assert {len(of) for cells in told.values() for of in cells.values()} == {7}
    else:
        assert told == {}


@pytest.mark.parametrize("blocks", [0, 1, 2])
def test_one_block_on_even_clients_tells_nothing(runs, tmp_path, blocks):
    folder = tmp_path / "batch/even"
    runs[folder] = [run for run in runs[folder] if run.knobs["seed"] <= 1200 + blocks]
    assert bool(judged.at_one(tmp_path)) == (blocks == 2)


KNOBS = {
    "recipe": "batchnorm", "network.depth": 4, "network.width": 4, "partition.clients": 5,
    "sampling.clients": 2, "client.batch-size": 1, "rounds": 1, "engine": "sequential",
}  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folders of a small run of BatchNorm and of one without."""
    out = tmp_path_factory.mktemp("trained")
    for recipe in ("batchnorm", "none"):
        fl.run({**KNOBS, "recipe": recipe}, out=out / recipe)
    return out


@pytest.mark.parametrize("images", [1000, 997])
def test_a_network_is_scored_by_running_statistics_and_by_those_of_batches(
    trained, monkeypatch, images
):
    """With 997 images batches of 4 and of 250 are not all of one size."""
    run, dataset = trained / "batchnorm", load(fl.load_model(trained / "batchnorm").knobs)
    test = dataset.test.only(torch.arange(images))
    monkeypatch.setattr(mechanism, "load", lambda knobs: replace(dataset, test=test))
    rows = {row["statistics"]: row for row in mechanism.scored(run)}
    assert list(rows) == ["running", *mechanism.SIZES]
    model = fl.load_model(run)
    with torch.no_grad():
        assert_scored(rows["running"], model(test.images), test.labels)
    if images == 1000:
        result = Journal(run).result()
        found = [rows["running"]["accuracy"], rows["running"]["loss"]]
        assert found == pytest.approx([result["final_accuracy"], result["final_loss"]])
    for layer in model.modules():
        if isinstance(layer, BatchNorm):
            layer.train()
    for size in mechanism.SIZES:
        step = -(-images // size)
        outputs = torch.empty(images, 10)
        for start in range(step):
            with torch.no_grad():
                outputs[start::step] = model(test.images[start::step])
        assert_scored(rows[size], outputs, test.labels)


def assert_scored(row, outputs, labels):
    assert row["accuracy"] == pytest.approx((outputs.argmax(1) == labels).double().mean().item())
    assert row["loss"] == pytest.approx(F.cross_entropy(outputs.double(), labels).item(), rel=1e-4)


def test_rows_of_networks_are_printed_and_bad_input_is_one_line(trained, tmp_path, capsys):
    assert mechanism.main([str(trained / "batchnorm")]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["statistics"] for row in rows] == ["running", "1", "4", "250"]
    shutil.copytree(trained / "batchnorm", tmp_path / "unfinished")
    (tmp_path / "unfinished/result.json").unlink()
    for runs in ([], [trained / "none"], [trained / "absent"], [tmp_path / "unfinished"]):
        assert mechanism.main([str(run) for run in runs]) == 2
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1)


def test_rows_of_networks_are_told_by_skew(tmp_path):
    table = tmp_path / "statistics.csv"
    scores = [("running", 0.1, 3.0), (1, 0.4, 1.5), ("running", 0.2, 3.5), (1, 0.5, 1.25)]
    of = {"average": ("iid", 0.3), "recalibrate": ("dirichlet-equal", 1.0)}
    rows = [
        ",".join(map(str, ("batchnorm", bn, *of[bn], f"{bn}{place // 2}", *score)))
        for bn in of
        for place, score in enumerate(scores)
    ]
    head = "recipe,state.bn,partition.kind,partition.alpha,model_sha256,statistics,accuracy,loss"
    table.write_text("\n".join([head, *rows, ""]))
    assert list(micro_batches.by_statistics(table)) == [
        "| clients | contender | networks | running statistics | each image's own |",
        "|---|---|---|---|---|",
        "| even | BatchNorm | 2 | 15.0 (loss 3.25) | 45.0 (loss 1.38) |",
        "| α 1 | BatchNorm, recalibrated | 2 | 15.0 (loss 3.25) | 45.0 (loss 1.38) |",
    ]
