"""A device with its own files trains to the very bytes of the client that was dealt them."""

import json
import sys

import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord, Message, RecordDict

import fl.client.app
from fl import data
from fl.config.parsing import ConfigError
from fl.data import Dataset, Split, catalogue, shards, share, shares, write_shard
from fl.data.formats import read
from fl.messages import records
from fl.reproducibility import seeds
from fl.simulation import InlineGrid
from fl.training import parameters

KINDS = [
    {"recipe": "zc-swish", "partition.held-out": 0.25, "data.augment": "crop-flip"},
    {"recipe": "batchnorm", "partition.kind": "feature-noise", "partition.noise": 0.5},
    {
        "recipe": "batchnorm",
        "state.bn": "recalibrate",
        "partition.kind": "label-count",
        "partition.labels": 4,
    },
    {"recipe": "batchnorm", "state.bn": "local", "partition.held-out": 0.2},
    {"recipe": "batchnorm", "state.bn": "drop", "partition.kind": "iid"},
    {"recipe": "nf", "network.kind": "resnet-v2", "network.depth": 8, "data.validation": 0.85},
    {"recipe": "salunet", "signals.every": 1, "partition.kind": "shards"},
    {"recipe": "selfnorm", "network.kind": "ffnn", "fleet.memory": "1:0.5,8:0.5"},
]


def answers(knobs, monkeypatch, paths=()) -> list[Message]:
    """Return what clients say to two rounds, statistics included; devices have files only."""
    grid = InlineGrid(knobs)
    if paths:
        for client, context in enumerate(grid.contexts.values()):
            context.node_config["data-path"] = str(paths[client])
        monkeypatch.setattr(shares, "_load", None)
        monkeypatch.setattr(parameters, "load", None)
    untrained = parameters.build_network(
        knobs, seeds.torch_stream(1, "init"), data.Form((1, 28, 28), 10)
    )
    state = untrained.state()
    if knobs.state.bn == "local":
        own = fl.nn.statistics(untrained.module)
        state = {name: tensor for name, tensor in state.items() if name not in own}
    said = []
    for number, kind in ((1, "train"), (2, "train"), (2, records.RECALIBRATE)):
        config = ConfigRecord(
            {records.ROUND: number, records.MEASURE: knobs.signals.due(number, 2)}
        )
        content = RecordDict({records.ARRAYS: records.pack_network(state), records.CONFIG: config})
        if kind == "train" or knobs.state.bn == "recalibrate":
            messages = [Message(content, node, kind) for node in grid.get_node_ids()]
            said += list(grid.send_and_receive(messages))
    monkeypatch.undo()
    return said


@pytest.mark.parametrize("changes", KINDS, ids=str)
def test_a_device_s_replies_are_the_simulated_client_s_to_the_byte(
    tiny, tmp_path, monkeypatch, changes
):
    knobs = tiny(
        {"partition.clients": 3, "client.batch-size": 16, "data.validation": 0.9} | changes
    )
    paths = [write_shard(tmp_path / str(k), k, knobs).parent for k in range(3)]
    simulated = answers(knobs, monkeypatch)
    real = answers(knobs, monkeypatch, paths)
    assert len(real) in (6, 9)
    for ours, theirs in zip(simulated, real, strict=True):
        assert not theirs.has_error(), theirs.error.reason
        one, other = (records.network_in(m.content) for m in (ours, theirs))
        assert {n: a.data for n, a in one.items()} == {n: a.data for n, a in other.items()}
        figures = [{**records.figures(m.content), "seconds": 0} for m in (ours, theirs)]
        assert figures[0] == figures[1]
        assert str(ours.content.get(records.SIGNALS)) == str(theirs.content.get(records.SIGNALS))


def test_natural_owners_and_signals_of_float32_are_dealt_to_devices_too(
    tiny, tmp_path, monkeypatch
):
    rng = np.random.default_rng(1)
    images = torch.from_numpy(rng.normal(3, 2, (120, 2, 16)).astype(np.float32))
    split = Split(images, torch.arange(120) % 4, torch.arange(120) % 3)
    watch = Dataset("watch", split, split, tuple("abcd"), "none", "here", tuple("xyz"))
    monkeypatch.setattr(shares, "_load", lambda source: watch)
    flat_keys = {"partition.kind": "natural", "partition.clients": 3, "data.name": "w"}
    knobs = tiny(flat_keys | {"partition.held-out": 0.2})
    for client in range(3):
        dealt = share({"partition-id": client}, knobs)
        path = write_shard(tmp_path / str(client), client, knobs)
        found = share({"partition-id": client, "data-path": str(path)}, knobs)
        assert found.dataset.form == watch.form
        for ours, theirs in ((dealt.train, found.train), (dealt.held_out, found.held_out)):
            one, other = dealt.dataset.train.only(ours), found.dataset.train.only(theirs)
            assert torch.equal(one.images, other.images)
            assert torch.equal(one.labels, other.labels)
        some = images[:5]
        assert torch.equal(watch.inputs(some), found.dataset.inputs(some))
        assert torch.equal(watch.on_inputs(0.3), found.dataset.on_inputs(0.3))


def test_a_shard_of_another_deal_is_refused_unless_devices_train_on_what_they_hold(tiny, tmp_path):
    path = str(write_shard(tmp_path, 1, tiny()).parent)
    for number, changes, words in (
        (1, {"partition.alpha": 0.1}, "was dealt with partition.alpha=0.3, but here it is 0.1"),
        (1, {"seed": 2}, "seed=1, but here it is 2"),
        (2, {}, "partition-id=1, but here it is 2"),
    ):
        config = {"partition-id": number, "data-path": path}
        with pytest.raises(ConfigError, match=words) as error:
            share(config, tiny(changes))
        assert "\n" not in str(error.value)
        assert len(share(config, tiny({**changes, "data.name": "devices"})).train) > 9


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda p: p.write_bytes(p.read_bytes()[:-500]), "is damaged"),
        (lambda p: p.write_bytes(b"nothing"), "is damaged"),
        (lambda p: p.write_bytes(p.read_bytes()[:99] + b"?" + p.read_bytes()[100:]), "is damaged"),
        (lambda p: p.unlink(), "No such file|does not exist"),
    ],
)
def test_a_damaged_shard_is_one_line_that_names_it(tiny, tmp_path, spoil, words):
    path = write_shard(tmp_path, 0, tiny())
    spoil(path)
    with pytest.raises(ConfigError, match=words) as error:
        share({"partition-id": 0, "data-path": str(path)}, tiny())
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)


def test_a_shard_that_holds_other_images_than_it_says_is_refused(tiny, tmp_path):
    path = write_shard(tmp_path, 0, tiny())
    with np.load(path) as found:
        arrays = dict(found)
    arrays["train_images"][0] ^= 1
    np.savez(path, **arrays)
    with pytest.raises(ConfigError, match=r"damaged .*fingerprint"):
        shards.read(path)


def own_files(path, labels, shape=(8, 8)) -> str:
    images = np.arange(len(labels) * 64, dtype=np.uint8).reshape(-1, *shape)
    both = {f"{s}_images": images for s in ("train", "test")}
    np.savez(path, **both, **{f"{s}_labels": np.array(labels) for s in ("train", "test")})
    return str(path)


def test_a_device_s_own_files_may_lack_classes_that_the_knob_names(tiny, tmp_path):
    path = own_files(tmp_path / "mine.npz", [4, 1, 4, 1, 1])
    knobs = tiny({"data.name": "devices", "data.classes": "6"})
    mine = share({"partition-id": 0, "data-path": path}, knobs)
    assert (mine.source, mine.dataset.form) == ("own", ((1, 8, 8), 6))
    assert (len(mine.train), len(mine.scored)) == (5, 5)
    assert mine.dataset.train.labels.tolist() == [4, 1, 4, 1, 1]
    for classes, words in (("4", "label 4 of example 0 is outside 0 to 3"), ("", "without gaps")):
        with pytest.raises(ConfigError, match=words):
            share({"partition-id": 0, "data-path": path}, tiny({"data.classes": classes}))


def test_classes_with_names_are_known_by_them_on_every_device(tmp_path):
    image = pytest.importorskip("PIL.Image")
    for split in ("train", "test"):
        for name in ("dog", "cat"):
            (tmp_path / split / name).mkdir(parents=True)
            image.new("L", (4, 4)).save(tmp_path / split / name / "0.png")
    found = read(tmp_path, "ape,dog,cat")
    assert found.classes == ("ape", "dog", "cat")
    assert found.train.labels.tolist() == [2, 1]
    with pytest.raises(ConfigError, match="class 'dog' is not among"):
        read(tmp_path, "ape,cat")


def test_devices_is_no_data_set_that_is_here():
    with pytest.raises(catalogue.DataNotHere, match="the images are on devices"):
        shares.load("devices")


def test_numpy_is_enough_to_read_a_shard(tiny, tmp_path, monkeypatch):
    path = str(write_shard(tmp_path, 0, tiny()))
    for module in ("PIL", "pyarrow", "datasets", "fl.data.formats"):
        monkeypatch.setitem(sys.modules, module, None)
    assert len(share({"partition-id": 0, "data-path": path}, tiny()).train)


def npz(path, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 256, (60, 28, 28), np.uint8)
    y = np.arange(60) % 3
    np.savez(path, x_train=x, y_train=y, x_test=x[:9], y_test=y[:9])
    return str(path)


def test_a_shard_is_bound_to_the_data_s_content_and_not_to_their_name(tiny, tmp_path):
    knobs = tiny({"data.name": npz(tmp_path / "one.npz"), "partition.kind": "iid"})
    path = write_shard(tmp_path / "0", 0, knobs)
    (tmp_path / "moved").mkdir()
    (tmp_path / "one.npz").rename(tmp_path / "moved" / "two.npz")
    moved = knobs.replace({"data.name": str(tmp_path / "moved" / "two.npz")})
    found = share({"partition-id": 0, "data-path": str(path)}, moved)
    assert found.dealt_from == data.load(moved).fingerprint
    other = knobs.replace({"data.name": npz(tmp_path / "one.npz", seed=1)})
    assert found.dealt_from != data.load(other).fingerprint


def test_a_shard_of_an_earlier_version_is_bound_to_the_name(tiny, tmp_path):
    knobs = tiny({"data.name": npz(tmp_path / "one.npz"), "partition.kind": "iid"})
    path = write_shard(tmp_path / "0", 0, knobs)
    with np.load(path) as found:
        arrays = dict(found)
    about = json.loads(str(arrays["about"]))
    del about["dealt_from"]
    about["law"]["data.name"] = knobs.data.name
    np.savez(path, **{**arrays, "about": np.array(json.dumps(about))})
    node = {"partition-id": 0, "data-path": str(path)}
    assert share(node, knobs).dealt_from == ""
    with pytest.raises(ConfigError, match=r"was dealt with data.name=.*one.npz, but here it is"):
        share(node, knobs.replace({"data.name": "two.npz"}))
