import csv
import dataclasses
import json
import math
import shutil

import pytest

from experiments import probe
from fl.config import Experiment
from fl.config.parsing import ConfigError
from fl.data import load, validation
from fl.nn.probes import measure
from fl.reproducibility.seeds import torch_stream
from fl.training import parameters
from tests.experiments.answers import refused

TINY = {"network.depth": 3, "network.width": 4}
SET = [word for key, value in TINY.items() for word in ("--set", f"{key}={value}")]
PROBE = ["probe", *SET, "--images", "8"]
RUN = [*SET, "--set", "partition.kind=iid", "--set", "partition.clients=100"]
RUN += ["--set", "sampling.clients=2", "--set", "client.batch-size=32", "--set", "rounds=1"]


def numbers(path):
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_sheet_has_every_number_that_measure_gives(fednf, tmp_path):
    answer = fednf(*PROBE, "--recipes", "none,batchnorm", "--seeds", "2", "--out", "p")
    assert (answer.status, answer.err) == (0, "")
    rows = numbers(tmp_path / "p" / "signals.csv")
    knobs = Experiment.from_flat({**TINY, "recipe": "batchnorm", "seed": 2})
    network = parameters.build_network(knobs, torch_stream(2, "init")).module
    expected = measure(network, *probe.batch(knobs, 8))
    found = [row for row in rows if (row["recipe"], row["seed"]) == ("batchnorm", "2")]
    assert [row["place"] for row in found] == [str(i + 1) for i in range(len(expected))]
    for row, layer in zip(found, expected, strict=True):
        for name, value in dataclasses.asdict(layer).items():
            assert row[name] == ("" if value is None else str(value))
    assert len(rows) == 4 * len(expected) - 2 * 2  # `none` has no norms


def test_networks_are_probed_of_fewer_clients_than_a_round_asks_by_default(fednf, tmp_path):
    answer = fednf(*PROBE, "--recipes", "none", "--seeds", "1", "--set", "partition.clients=3")
    assert (answer.status, answer.err) == (0, "")


def test_the_same_command_gives_the_same_bytes(fednf, tmp_path):
    for name in ("a", "b"):
        assert fednf(*PROBE, "--out", name).status == 0
    for name in ("signals.csv", "signals.svg", "signals.png"):
        first, second = ((tmp_path / out / name).read_bytes() for out in ("a", "b"))
        assert first == second


def test_the_table_and_json_say_what_the_sheet_says(fednf, tmp_path):
    answer = fednf(*PROBE, "--recipes", "none", "--seeds", "1", "--json")
    told = json.loads(answer.lines[-1])
    assert told["folder"] == "runs/probe"
    rows = numbers(tmp_path / "runs" / "probe" / "signals.csv")
    acv = [float(row["acv"]) for row in rows if row["kind"] == "activation"]
    back = [float(row["gradient_acv"]) for row in rows if row["kind"] == "activation"]
    (network,) = told["networks"]
    assert (network["acv_first"], network["acv_last"]) == (acv[0], acv[-1])
    assert (network["acv_min"], network["acv_max"]) == (min(acv), max(acv))
    assert network["gradient_last_to_first"] == pytest.approx(back[-1] / back[0])
    assert (network["forward"], network["backward"]) == pytest.approx((1, 1)), "He's are for ReLU"
    assert network["depth_forward"] == pytest.approx(network["depth_backward"])
    assert all(word in answer.out for word in ("ReLU", "2E f²", "χ", "depth"))


def test_a_run_is_measured_as_its_checkpoint_left_it(fednf, tmp_path):
    assert fednf("run", *RUN, "--set", "recipe=none", "--out", "a").status == 0
    answer = fednf("probe", "--run", "a", "--images", "8", "--out", "p")
    assert answer.status == 0
    rows = numbers(tmp_path / "p" / "signals.csv")
    assert {(row["run"], row["round"]) for row in rows} == {("a", "1")}
    fednf(*PROBE, "--recipes", "none", "--seeds", "1", "--out", "q")
    before = numbers(tmp_path / "q" / "signals.csv")
    assert [row["name"] for row in rows] == [row["name"] for row in before]
    assert all(mine["acv"] != theirs["acv"] for mine, theirs in zip(rows, before, strict=True))


def test_statistics_that_stay_with_clients_are_not_looked_for(fednf, tmp_path):
    words = [*RUN, "--set", "recipe=batchnorm", "--set", "state.bn=local"]
    assert fednf("run", *words, "--out", "a").status == 0
    assert fednf("probe", "--run", "a", "--images", "8", "--out", "p").status == 0
    assert numbers(tmp_path / "p" / "signals.csv")


BAD = {
    "--recipes batchnorm,zcswish": "recipe=zcswish does not exist; did you mean zc-swish?",
    "--recipes nf --set network.kind=resnet": "recipe=nf does not fit network.kind=resnet",
    "--set network.depht=3": "unknown knob network.depht",
    "--images 5001": "--images=5001: fashion-mnist-small has 5,000 training images",
    "--images 0": "--images",
    "--out mine.toml": "mine.toml is a file; choose another folder",
    "--recipes nf --set network.kind=resnet-v2 --set network.width=1": "raise network.width",
    "--seeds 0": "--seeds",
    "--run nowhere": "nowhere holds no run (no experiment.json in it)",
    "--run begun": "begun has no checkpoint: no round of it is finished",
    "--run begun --recipes none": "--run brings knobs of its own",
    "--run begun --seeds 2": "--run brings knobs of its own",
}


@pytest.mark.parametrize("words", BAD)
def test_bad_input_is_one_line_and_status_two_and_writes_nothing(
    fednf, tmp_path, write_begun, words
):
    write_begun(tmp_path / "begun")
    (tmp_path / "mine.toml").touch()
    before = sorted(tmp_path.rglob("*"))
    assert BAD[words] in refused(fednf("probe", *words.split()))
    assert sorted(tmp_path.rglob("*")) == before


@pytest.fixture
def write_begun():
    def write(folder):
        folder.mkdir()
        header = {"knobs": Experiment.from_flat(TINY).to_flat(), "identity": "", "packages": {}}
        header |= dict.fromkeys(("data_sha256", "deal_sha256", "code_sha256"), "")
        (folder / "experiment.json").write_text(json.dumps(header))

    return write


def test_a_checkpoint_of_another_network_is_refused_in_one_line(fednf, tmp_path, write_begun):
    assert fednf("run", *RUN, "--set", "recipe=none", "--out", "a").status == 0
    write_begun(tmp_path / "b")
    shutil.copy(tmp_path / "a" / "checkpoint.safetensors", tmp_path / "b")
    header = json.loads((tmp_path / "b" / "experiment.json").read_text())
    header["knobs"]["recipe"] = "batchnorm"
    (tmp_path / "b" / "experiment.json").write_text(json.dumps(header))
    assert "tensors are not this network's" in refused(fednf("probe", "--run", "b"))


def test_images_are_training_images_that_are_not_kept_for_validation():
    knobs = Experiment.from_flat({"data.validation": 0.9, "seed": 4})
    dataset = load(knobs.data.name)
    inputs, _ = probe.batch(knobs, 500)
    kept = {x.numpy().tobytes() for x in dataset.train.images[validation(knobs)]}
    left = {x.numpy().tobytes() for x in dataset.train.images} - kept
    mean, std = float(dataset.mean), float(dataset.std)
    drawn = {(x * std + mean).round().byte().numpy().tobytes() for x in inputs}
    assert drawn <= left
    with pytest.raises(ConfigError, match="has 500 training images"):
        probe.batch(knobs, 501)


def test_recipes_with_one_seed_see_the_same_images():
    knobs = Experiment.from_flat(TINY)
    subjects = probe.at_initialization(knobs, ["none", "swish", "none"], seeds=2)
    assert [(k.recipe, k.seed) for k, _ in subjects] == [
        ("none", 1),
        ("none", 2),
        ("swish", 1),
        ("swish", 2),
    ]
    first, other, third, _ = (probe.batch(k, 4)[0] for k, _ in subjects)
    assert first.equal(third)
    assert not first.equal(other)
    assert math.isfinite(float(first.sum()))
