"""A data set and a deal from a user's file get all that ours have."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import fl
import fl.data
from fl.config import relevant
from fl.config.parsing import ConfigError
from fl.data import deal, load, share, shares, write_shard
from fl.server.journal import Journal
from fl.server.watching.callback import Callback
from fl.simulation import run

FILE = """
import numpy as np
import fl


def dataset(examples: int = 120, classes: int = 3):
    rng = np.random.default_rng(1)
    labels = np.arange(examples) % classes
    images = rng.normal(size=(examples, 2, 8, 8)) + labels[:, None, None, None]
    owners = np.arange(examples) % 5
    return fl.Dataset(
        (images, labels), test=0.25, domains=(owners, None), name="toy", layout="NCHW"
    )


ready = dataset(60)


def deal(labels, clients, rng, skew: float = 0.0):
    order = np.argsort(skew * labels + rng.random(len(labels)))
    return np.array_split(order, clients)


def by_owner(labels, clients, rng, domains):
    return [np.flatnonzero(domains % clients == client) for client in range(clients)]


def twice(labels, clients, rng):
    return [[client, 7] for client in range(clients)]


def broken(labels, clients, rng):
    return labels["nothing"]


def random(labels, clients, rng):
    return np.array_split(np.random.default_rng().permutation(len(labels)), clients)


def nothing():
    return None


seven = 7
"""


@pytest.fixture
def knobs(tiny, tmp_path):
    """Make experiments on the data set of a user's file."""
    (tmp_path / "my.py").write_text(FILE)

    def make(flat=None):
        mine = {"data.name": f"{tmp_path}/my.py:dataset", "client.batch-size": 4}
        flat = {
            key: str(value).replace("my.py", f"{tmp_path}/my.py")
            if "my.py" in str(value)
            else value
            for key, value in (flat or {}).items()
        }
        return tiny({**mine, "engine": "sequential", **flat})

    return make


def test_a_function_s_data_set_is_loaded_once_with_its_options(knobs):
    data = load(knobs())
    assert (data.name, data.form, len(data.train)) == ("toy", ((2, 8, 8), 3), 90)
    assert load(knobs({"rounds": 5})) is data
    assert len(load(knobs({"data.options.examples": 60})).train) == 45
    assert load(knobs({"data.options.classes": 4})).form.classes == 4
    assert len(load(knobs({"data.name": "my.py:ready"})).train) == 45
    with pytest.raises(ConfigError, match=r"unknown option data\.options\.example; did you mean"):
        knobs({"data.options.example": 60})


def test_other_components_do_not_make_it_be_loaded_again(knobs, tmp_path):
    (tmp_path / "deals.py").write_text(FILE)
    other = {"partition.kind": f"{tmp_path}/deals.py:deal"}
    assert load(knobs(other)) is load(knobs())


@pytest.mark.parametrize(
    ("flat", "words"),
    [
        ({"data.name": "my.py:seven"}, "data.name=my.py:seven is int, expected a fl.Dataset"),
        ({"data.name": "my.py:nothing"}, "data.name=my.py:nothing returned NoneType, expected"),
        ({"partition.kind": "my.py:seven"}, "partition.kind=my.py:seven is int, expected a func"),
        ({"partition.kind": "my.py:twice"}, "partition.kind=my.py:twice: example 7 is dealt to cl"),
        ({"partition.kind": "my.py:by_owner", "data.name": "fashion-mnist-small"}, "takes domains"),
        ({"partition.kind": "my.py:by_owner", "partition.clients": 7}, "client 5 has no example"),
    ],
)
def test_what_is_no_data_set_or_no_deal_is_one_line(knobs, flat, words):
    with pytest.raises(ConfigError, match=words) as error:
        deal(knobs(flat))
    assert "\n" not in str(error.value)


def test_a_bug_in_a_deal_has_its_traceback(knobs):
    with pytest.raises(IndexError) as error:
        deal(knobs({"partition.kind": "my.py:broken"}))
    assert error.traceback[-1].path.name == "my.py"


def test_a_deal_is_given_what_it_takes(knobs):
    whole = deal(knobs({"partition.kind": "my.py:deal"}))
    assert sorted(torch.cat(whole).tolist()) == list(range(90))
    skewed = deal(knobs({"partition.kind": "my.py:deal", "partition.options.skew": 1.0}))
    labels = load(knobs()).train.labels
    mixes = [[len(labels[part].unique()) for part in parts] for parts in (whole, skewed)]
    assert max(mixes[1]) < min(mixes[0])
    assert str(deal(knobs({"partition.kind": "my.py:deal", "seed": 2}))) != str(whole)
    owned = deal(knobs({"partition.kind": "my.py:by_owner"}))
    owners = load(knobs()).train.domains
    assert [set(owners[part].tolist()) for part in owned] == [{k} for k in range(5)]
    empty = {"partition.kind": "my.py:by_owner", "partition.clients": 7, "partition.min-size": 0}
    assert [len(part) for part in deal(knobs(empty))][5:] == [0, 0]


def test_a_deal_sees_no_example_that_the_server_keeps(knobs):
    parts = deal(knobs({"partition.kind": "my.py:deal", "data.validation": 0.2}))
    kept = fl.data.validation(knobs({"data.validation": 0.2}))
    assert sorted(torch.cat([*parts, kept]).tolist()) == list(range(90))


def test_a_stranger_s_deal_minds_its_own_knobs_only(knobs):
    flat = {"partition.kind": "my.py:deal", "partition.options.skew": 0.5}
    minded = {key for key in relevant(knobs(flat).to_flat()) if key.startswith("partition.")}
    names = ("kind", "clients", "held-out", "min-size", "unseen", "options.skew")
    assert minded == {f"partition.{name}" for name in names}


class Stop(Callback):
    """Interrupts a run after its first round."""

    def round_done(self, line):
        if line["round"] == 1:
            raise KeyboardInterrupt


def result(knobs, folder: Path, **options) -> dict:
    shares._load.cache_clear()
    shares._deal.cache_clear()
    return run(knobs, Journal(folder), **options)


def test_a_run_gives_the_same_bytes_from_arrays_a_file_and_the_cache(knobs, tmp_path):
    own = knobs({"partition.kind": "my.py:deal", "partition.held-out": 0.2})
    first = result(own, tmp_path / "a")
    assert first["final_accuracy"] > 0.4
    kept = own.replace({"data.name": load(own).keep()})
    hashes = {
        first["model_sha256"],
        result(kept, tmp_path / "b")["model_sha256"],
    }
    assert len(hashes) == 1
    header = json.loads((tmp_path / "a" / "experiment.json").read_text())
    assert header["data_sha256"] == load(own).fingerprint
    assert header["knobs"]["data.name"] == "my.py:dataset"


@pytest.mark.slow
def test_workers_make_the_data_and_the_deal_themselves(knobs, tmp_path):
    own = knobs({"partition.kind": "my.py:deal"})
    one, two = (result(own, tmp_path / str(n), workers=n)["model_sha256"] for n in (1, 2))
    assert one == two


def test_an_interrupted_run_resumes_to_the_byte_and_not_on_other_data(knobs, tmp_path):
    own = knobs({"partition.kind": "my.py:deal"})
    whole = result(own, tmp_path / "whole")
    for folder in ("gone-on", "other"):
        with pytest.raises(KeyboardInterrupt):
            result(own, tmp_path / folder, callbacks=[Stop()])
    gone_on = result(own, tmp_path / "gone-on", resume=True)
    assert gone_on["model_sha256"] == whole["model_sha256"]
    changed = FILE.replace("default_rng(1)", "default_rng(2)")
    (tmp_path / "my.py").write_text(changed)
    with pytest.raises(ConfigError, match=r"begun with other code: my\.py has changed"):
        result(knobs({"partition.kind": "my.py:deal"}), tmp_path / "other", resume=True)


def test_data_that_are_others_each_time_are_refused_on_resume(knobs, tmp_path, monkeypatch):
    with pytest.raises(KeyboardInterrupt):
        result(knobs(), tmp_path / "run", callbacks=[Stop()])
    drawn = np.random.default_rng
    monkeypatch.setattr(np.random, "default_rng", lambda seed: drawn(seed + 1))
    with pytest.raises(ConfigError, match="data_sha256"):
        result(knobs(), tmp_path / "run", resume=True)


def test_a_device_s_shard_holds_what_is_dealt_and_says_by_what_code(knobs, tmp_path):
    flat = {"partition.kind": "my.py:deal", "partition.held-out": 0.2}
    own = knobs(flat)
    for client in range(5):
        path = write_shard(tmp_path / str(client), client, own)
        ours = share({"partition-id": client}, own)
        theirs = share({"partition-id": client, "data-path": str(path)}, own)
        for places in ("train", "held_out"):
            one, other = (s.dataset.train.only(getattr(s, places)) for s in (ours, theirs))
            assert torch.equal(one.images, other.images)
            assert torch.equal(one.labels, other.labels)
        some = ours.dataset.train.images[:3]
        assert torch.equal(ours.dataset.inputs(some), theirs.dataset.inputs(some))
    (tmp_path / "my.py").write_text(f"{FILE}\n")
    with pytest.raises(ConfigError, match=r"was dealt with code of my\.py:"):
        share({"partition-id": 4, "data-path": str(path)}, knobs(flat))


@pytest.mark.parametrize("form", [(), (3,)])
def test_targets_are_trained_on_by_simulated_clients_and_devices_alike(tiny, tmp_path, form):
    rng = np.random.default_rng(1)
    labels = rng.normal(size=(80, *form))
    mine = fl.Dataset((rng.normal(size=(80, 2, 16)), labels), test=0.25, layout="NCL")
    knobs = tiny({"data.name": mine.keep(), "task.kind": "regression", "client.lr": 0.01})
    assert len(result(knobs, tmp_path / "run")["model_sha256"]) == 64
    ours = share({"partition-id": 1}, knobs)
    path = write_shard(tmp_path / "shard", 1, knobs)
    theirs = share({"partition-id": 1, "data-path": str(path)}, knobs)
    one, other = (s.dataset.train.only(s.train) for s in (ours, theirs))
    assert one.labels.dtype == other.labels.dtype == torch.float32
    assert torch.equal(one.labels, other.labels)
    assert ours.dataset.form == theirs.dataset.form


def test_an_object_is_kept_under_a_name(tmp_path):
    pixels = np.random.default_rng(1).integers(0, 256, (60, 1, 8, 8), np.uint8)
    mine = fl.Dataset((pixels, np.arange(60) % 3), test=0.2, layout="NCHW")
    flat = {"data.name": mine, "partition.clients": 3, "sampling.clients": 2, "rounds": 1}
    flat |= {"network.depth": 3, "partition.kind": "iid", "device": "cpu"}
    one = fl.run(flat, out=tmp_path / "a", workers=1)
    other = fl.run({**flat, "data.name": mine.keep()}, out=tmp_path / "b", workers=1)
    assert one["model_sha256"] == other["model_sha256"]
    header = json.loads((tmp_path / "a" / "experiment.json").read_text())
    assert header["knobs"]["data.name"] == mine.keep()
    assert header["data_sha256"] == mine.fingerprint
