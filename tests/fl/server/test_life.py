"""Life after a run: it goes on to more rounds, and others start from what it has left."""

import json
import os
import shutil
import signal

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from fl.config import Experiment
from fl.config.parsing import ConfigError
from fl.data import load
from fl.server import rounds
from fl.server.journal import BEST, MODEL, Journal, best_of, model_sha256
from fl.server.result import ending, load_model
from fl.simulation import run
from fl.tasks import objective
from fl.training.loop import evaluate
from fl.training.parameters import FlatNetwork


def without_seconds(journal: Journal) -> list[dict]:
    return [
        {key: value for key, value in line.items() if not key.endswith("seconds")}
        for line in journal.rounds()
    ]


def weights(path) -> str:
    return model_sha256(load_file(path))


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Journal:
    """A run of two rounds; tests copy its folder if they change it."""
    flat = {"network.depth": 3, "network.width": 4, "partition.clients": 5, "sampling.clients": 2}
    knobs = Experiment.from_flat({**flat, "client.batch-size": 32, "rounds": 2, "device": "cpu"})
    journal = Journal(tmp_path_factory.mktemp("finished") / "run")
    run(knobs, journal)
    return journal


@pytest.fixture(scope="module")
def longer(tmp_path_factory, finished) -> Journal:
    """The same run, with five rounds from the beginning."""
    journal = Journal(tmp_path_factory.mktemp("longer") / "run")
    run(Experiment.from_flat({**finished.header()["knobs"], "rounds": 5}), journal)
    return journal


@pytest.mark.parametrize(
    "flat",
    [
        {"recipe": "batchnorm", "state.bn": "local", "signals.every": 2},
        {"fleet.dropout": 0.3, "strategy.kind": "fedprox", "strategy.mu": 0.1},
    ],
)
def test_a_longer_run_is_the_one_that_was_asked_for_at_first(tiny, tmp_path, flat):
    long, short = tiny({**flat, "rounds": 5}), tiny({**flat, "rounds": 3})
    expected = run(long, Journal(tmp_path / "long"))
    journal = Journal(tmp_path / "short")
    run(short, journal)
    assert run(long, journal)["model_sha256"] == expected["model_sha256"]
    assert without_seconds(journal) == without_seconds(Journal(tmp_path / "long"))
    header = journal.header()
    assert (header["identity"], header["knobs"]["rounds"]) == (long.identity, 5)
    assert [(line["after_round"], line["rounds"]) for line in header["resumed"]] == [(3, 5)]
    assert weights(tmp_path / "short" / BEST) == weights(tmp_path / "long" / BEST)
    if "signals.every" in flat:  # what was the last round is measured, and stays so
        assert {line["round"] for line in journal.signals()} == {0, 2, 3, 4, 5}
        assert {line["round"] for line in Journal(tmp_path / "long").signals()} == {0, 2, 4, 5}


def test_a_run_never_becomes_shorter_than_what_is_done(tiny, tmp_path, finished):
    with pytest.raises(ConfigError, match="2 rounds are done, and with rounds=1 there would be 1"):
        run(tiny({"rounds": 1}), finished)
    assert finished.result()["rounds"] == 2


def test_other_knobs_can_not_change_on_the_way(tiny, finished):
    with pytest.raises(ConfigError, match=r"client\.lr=0\.05 there, 0\.1 here"):
        run(tiny({"rounds": 4, "client.lr": 0.1}), finished)


def dying(monkeypatch, name: str, number: int):
    """Let this process, which is a fork, die before a call of a Journal's method."""
    method, count = getattr(Journal, name), iter(range(number + 1))

    def deadly(*args, **options):
        if next(count) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return method(*args, **options)

    monkeypatch.setattr(Journal, name, deadly)


def killed(monkeypatch, name: str, number: int, knobs: Experiment, journal: Journal) -> None:
    """Run in a fork that dies before the so-manieth call of a Journal's method."""
    if (child := os.fork()) == 0:
        dying(monkeypatch, name, number)
        run(knobs, journal, resume=True)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


@pytest.mark.parametrize(("name", "number"), [("commit", 1), ("keep_network", 1), ("finish", 0)])
def test_a_longer_run_that_is_killed_goes_on(
    tiny, tmp_path, monkeypatch, finished, longer, name, number
):
    """Killed before a commit, between a commit and its best network, and before the result."""
    journal, long = Journal(tmp_path / "copy"), tiny({"rounds": 5})
    shutil.copytree(finished.folder, journal.folder)
    killed(monkeypatch, name, number, long, journal)
    assert journal.result() is None
    with pytest.raises(ConfigError, match="add --resume"):
        run(long, journal)
    result = run(long, journal, resume=True)
    assert result["model_sha256"] == longer.result()["model_sha256"]
    assert weights(journal.folder / BEST) == weights(longer.folder / BEST)
    assert journal.network(BEST)[1]["round"] == result["best_round"]


def scored(monkeypatch, scores) -> None:
    """Let rounds get these scores instead of their own."""
    own = rounds.Rounds._figures

    def evaluated(self, model, parts):
        number = len(self.lines)
        found = own(self, model, parts)
        return {**found, "validation_accuracy": scores[number]}

    monkeypatch.setattr(rounds.Rounds, "_figures", evaluated)


def test_the_best_network_is_that_of_the_best_round(tiny, tmp_path, monkeypatch):
    scored(monkeypatch, [0.1, 0.4, 0.3, 0.4])
    flat, journal = {"data.validation": 0.2}, Journal(tmp_path / "three")
    result = run(tiny({**flat, "rounds": 3}), journal)
    assert (result["best_round"], result["ended_by"]) == (1, "rounds=3")
    run(tiny({**flat, "rounds": 1}), Journal(tmp_path / "one"))
    assert weights(tmp_path / "three" / BEST) == weights(tmp_path / "one" / MODEL)
    assert weights(tmp_path / "three" / BEST) != weights(tmp_path / "three" / MODEL)
    assert journal.network(BEST)[1]["round"] == 1


def test_patience_ends_a_run_and_is_no_other_experiment(tiny, tmp_path, monkeypatch):
    scores = [0.1, 0.4, 0.3, 0.4, 0.5, 0.5]
    scored(monkeypatch, scores)
    flat, journal = {"data.validation": 0.2, "rounds": 5}, Journal(tmp_path / "run")
    result = run(tiny({**flat, "run.patience": 2}), journal)
    assert (result["rounds"], result["ended_by"]) == (3, "run.patience=2")
    assert run(tiny({**flat, "run.patience": 2}), journal) == result  # nothing is trained again
    with pytest.raises(ConfigError, match=r"3 rounds are done, and with run\.patience=1"):
        run(tiny({**flat, "run.patience": 1}), journal)
    assert run(tiny({**flat, "rounds": 9, "run.patience": 2}), journal)["rounds"] == 3
    longer = run(tiny(flat), journal)
    assert (longer["rounds"], longer["ended_by"]) == (5, "rounds=5")
    assert longer["model_sha256"] == run(tiny(flat), Journal(tmp_path / "at once"))["model_sha256"]


@pytest.mark.slow
def test_patience_waits_for_a_round_that_is_still_to_be_evaluated(tiny, tmp_path, monkeypatch):
    """With workers a round is evaluated while they train the next."""
    scored(monkeypatch, [0.4, 0.3, 0.2, 0.1])
    knobs = tiny({"data.validation": 0.2, "rounds": 3, "run.patience": 1})
    alone, many = Journal(tmp_path / "alone"), Journal(tmp_path / "many")
    assert run(knobs, alone)["rounds"] == run(knobs, many, workers=2)["rounds"] == 1
    assert without_seconds(alone) == without_seconds(many)


def test_a_killed_run_is_as_patient_as_an_undisturbed_one(tiny, tmp_path, monkeypatch):
    scored(monkeypatch, [0.1, 0.4, 0.3, 0.2, 0.5])
    knobs = tiny({"data.validation": 0.2, "rounds": 4, "run.patience": 2})
    expected, journal = run(knobs, Journal(tmp_path / "whole")), Journal(tmp_path / "killed")
    killed(monkeypatch, "commit", 3, knobs, journal)
    found = run(knobs, journal, resume=True)
    keys = ("rounds", "ended_by", "best_round", "model_sha256")
    assert [found[key] for key in keys] == [expected[key] for key in keys]


def test_patience_needs_validation_images():
    with pytest.raises(ConfigError, match=r"run\.patience=3 goes by validation images: set data"):
        Experiment.from_flat({"run.patience": 3})


def test_an_ending_is_told_by_its_knob(tiny):
    lines = [{"round": n, "validation_accuracy": x} for n, x in enumerate((0.1, 0.3, 0.3, 0.2))]
    knobs = tiny({"rounds": 9, "data.validation": 0.1, "run.patience": 2})
    assert [ending(lines[:n], knobs) for n in range(1, 5)] == [None, None, None, "run.patience=2"]
    assert ending(lines, tiny({"rounds": 3})) == "rounds=3"
    assert best_of(lines, objective(tiny()).primary)[1]["round"] == 1


@pytest.mark.slow
def test_a_run_starts_from_another_s_weights(tiny, tmp_path, finished):
    knobs = tiny({"seed": 2, "run.start-from": str(finished.folder), "rounds": 1})
    inline, workers = Journal(tmp_path / "inline"), Journal(tmp_path / "workers")
    result = run(knobs, inline)
    assert inline.rounds()[0]["test_loss"] == finished.rounds()[-1]["test_loss"]
    assert run(knobs, workers, workers=2)["model_sha256"] == result["model_sha256"]
    other = tiny({"seed": 2, "rounds": 1})
    assert run(other, Journal(tmp_path / "other"))["model_sha256"] != result["model_sha256"]
    assert inline.header()["knobs"]["run.start-sha256"] == knobs.run.start_sha256


def test_the_identity_is_that_of_the_weights_and_not_of_their_place(tiny, tmp_path, finished):
    file = tmp_path / "weights.safetensors"
    shutil.copy(finished.folder / MODEL, file)
    here = tiny({"run.start-from": str(file)})
    assert here.identity == tiny({"run.start-from": str(finished.folder)}).identity
    assert here.identity != tiny().identity
    changed = load_file(file)
    changed["classifier.bias"] = changed["classifier.bias"] + np.float32(1)
    save_file(changed, file)
    assert tiny({"run.start-from": str(file)}).identity != here.identity
    assert here.replace({"run.start-from": str(file)}).identity != here.identity
    assert here.replace({"run.start-from": ""}).identity == tiny().identity


@pytest.mark.slow
def test_given_weights_may_be_gone_after_round_0_and_not_change_before(
    tiny, tmp_path, monkeypatch, finished
):
    file = tmp_path / "weights.safetensors"
    shutil.copy(finished.folder / MODEL, file)
    knobs = tiny({"run.start-from": str(file), "rounds": 2})
    expected = run(knobs, Journal(tmp_path / "whole"))["model_sha256"]
    begun, later = Journal(tmp_path / "begun"), Journal(tmp_path / "later")
    killed(monkeypatch, "commit", 0, knobs, begun)  # there is experiment.json, and no checkpoint
    killed(monkeypatch, "commit", 2, knobs, later)
    save_file({"w": np.ones(2, np.float32)}, file)
    with pytest.raises(ConfigError, match="its SHA-256 was"):
        run(knobs, begun, resume=True)
    with pytest.raises(ConfigError, match="was begun from other weights"):
        run(tiny({"run.start-from": str(file), "rounds": 2}), begun, resume=True)
    file.unlink()
    there = Experiment.from_flat(later.header()["knobs"])
    assert run(there, later, resume=True)["model_sha256"] == expected


@pytest.mark.parametrize(
    ("flat", "said"),
    [
        (
            {"network.depth": 4},
            r"5 tensors missing \(layers\.2\.conv\.weight, .*, …\); 2 tensors of",
        ),
        ({"recipe": "none"}, "unexpected"),
        ({"network.width": 8}, r"of other shapes \(layers\.0\.conv\.weight \(4, 1, 3, 3\), here"),
    ],
)
def test_weights_that_are_not_the_network_s_are_told_in_one_line(
    tiny, tmp_path, finished, flat, said
):
    knobs = tiny({**flat, "run.start-from": str(finished.folder)})
    with pytest.raises(ConfigError, match=said) as refused:
        run(knobs, Journal(tmp_path / "run"))
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "run").exists()


def test_weights_with_a_flipped_bit_are_refused(tiny, tmp_path, finished):
    file = tmp_path / "weights.safetensors"
    raw = (finished.folder / MODEL).read_bytes()
    file.write_bytes(raw[:-100] + bytes([raw[-100] ^ 0x40]) + raw[-99:])
    with pytest.raises(ConfigError, match=r"weights\.safetensors is damaged: its bytes are not"):
        run(tiny({"run.start-from": str(file)}), Journal(tmp_path / "run"))


def test_what_is_no_file_of_weights_is_refused(tiny, tmp_path):
    (tmp_path / "bad.safetensors").write_bytes(b"x")
    (tmp_path / "run").mkdir()
    said = {"bad.safetensors": "can't read", "none.safetensors": "is not here", "run": "has no mod"}
    for name, words in said.items():
        with pytest.raises(ConfigError, match=words):
            run(tiny({"run.start-from": str(tmp_path / name)}), Journal(tmp_path / "out"))


def test_a_loaded_network_scores_as_its_run_did(finished):
    model, dataset = load_model(finished.folder), load("fashion-mnist-small")
    with torch.inference_mode():
        right = (model(dataset.test.images).argmax(1) == dataset.test.labels).float().mean()
    assert float(right) == pytest.approx(finished.rounds()[-1]["test_accuracy"], abs=1e-6)
    images = dataset.test.images[:8]
    inner = FlatNetwork(model.network, torch.device("cpu"))
    assert torch.equal(model(images), inner.module(dataset.inputs(images)))
    assert torch.equal(model(images), model(images.float()))
    assert (model.shape, model.classes) == (dataset.shape, dataset.classes)
    assert (model.knobs.recipe, model.values, model.training) == ("zc-swish", "uint8", False)
    with pytest.raises(ValueError, match=r"for \(1, 28, 28\)"):
        model(images[0])
    with pytest.raises(ConfigError, match="which='bset', expected 'last' or 'best'"):
        load_model(finished.folder, "bset")
    best = load_model(finished.folder, "best")
    flat = FlatNetwork(best.network, torch.device("cpu"))
    loss, _ = evaluate(flat, dataset, dataset.test, objective(best.knobs))
    line = finished.rounds()[finished.result()["best_round"]]
    assert loss == pytest.approx(line["test_loss"])


def test_a_network_without_moments_asks_for_them(tmp_path, finished):
    shutil.copytree(finished.folder, tmp_path / "run")
    journal = Journal(tmp_path / "run")
    tensors, about = journal.network(MODEL)
    number = about.pop("round")
    journal.keep_network(MODEL, tensors, number, {**about, "mean": None, "std": None})
    with pytest.raises(ConfigError, match="each device standardized by its own"):
        load_model(tmp_path / "run")
    images = load("fashion-mnist-small").test.images[:4]
    given = load_model(tmp_path / "run", moments=(about["mean"], about["std"]))
    assert torch.equal(given(images), load_model(finished.folder)(images))


def test_a_run_of_an_earlier_version_is_loaded_by_its_data(tmp_path, finished, make_unchecked):
    make_unchecked(shutil.copytree(finished.folder, tmp_path / "run"))
    save_file(load_file(tmp_path / "run" / MODEL), tmp_path / "run" / MODEL)
    (tmp_path / "run" / BEST).unlink()
    images = load("fashion-mnist-small").test.images[:4]
    assert torch.equal(load_model(tmp_path / "run")(images), load_model(finished.folder)(images))
    with pytest.raises(ConfigError, match="has no best"):
        load_model(tmp_path / "run", "best")
    with pytest.raises(ConfigError, match="holds no run"):
        load_model(tmp_path)


def test_what_using_a_network_takes_is_in_its_file(finished):
    told = json.dumps(finished.network(MODEL)[1])
    for words in ("fashion-mnist-small", "Ankle boot", '"recipe": "zc-swish"', '"seed": 1'):
        assert words in told
