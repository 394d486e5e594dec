import math
import pickle
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fl.config import Client, Experiment, Fleet, parse_clip, relevant
from fl.config.parsing import ConfigError, flatten, parse_settings, read_toml, to_toml

POSITIVE = st.integers(1, 10**6)
RATES = st.floats(1e-9, 1e6)
TEXT = st.text(st.characters(exclude_categories=["C"]), max_size=8)
FLAT = st.fixed_dictionaries(
    {},
    optional={
        "seed": st.integers(0, 2**63 - 1),
        "seed.deal": st.one_of(st.integers(0, 2**63 - 1), st.just("auto")),
        "rounds": POSITIVE,
        "recipe": TEXT,
        "network.kind": st.sampled_from(["plainnet", "resnet", "nfnet"]),
        "network.depth": st.one_of(POSITIVE, st.sampled_from(["auto", "F0", "F6"])),
        "network.per-channel": st.booleans(),
        "partition.alpha": RATES,
        "partition.min-size": st.integers(0, 100),
        "partition.clients": st.integers(10, 1000),
        "client.batch-size": POSITIVE,
        "client.lr": RATES,
        "client.clip": st.one_of(
            st.sampled_from(["none", "auto"]),
            RATES.map(lambda bound: f"norm:{bound}"),
            RATES.map(lambda bound: f"agc:{bound}"),
        ),
        "client.momentum": st.floats(0, 0.999),
        "run.dir": TEXT.map(lambda text: f"/{text}"),
    },
)


@given(FLAT)
def test_every_spelling_of_an_experiment_is_the_same_experiment(flat):
    experiment = Experiment.from_flat(flat)
    keys = experiment.to_flat()
    assert Experiment.from_flat(keys) == experiment
    assert flatten(tomllib.loads(to_toml(keys))) == keys
    settings = to_toml(keys).replace(" = ", "=", len(keys)).splitlines()
    assert Experiment.from_flat(parse_settings(settings)) == experiment
    assert Experiment.model_validate_json(experiment.model_dump_json()) == experiment


def test_toml_files_may_nest_or_not(tmp_path):
    path = tmp_path / "knobs.toml"
    path.write_text('recipe = "swish"\nclient.lr = 1\n[partition]\nalpha = 0.1\n')
    experiment = Experiment.from_flat(read_toml(path))
    assert (experiment.recipe, experiment.client.lr, experiment.partition.alpha) == (
        "swish",
        1.0,
        0.1,
    )


def test_seeds_of_their_own_are_a_table_or_keys_in_quotes(tmp_path):
    path = tmp_path / "knobs.toml"
    for text in ("[seed]\ndeal = 3\n", '"seed.deal" = 3\nseed = 1\n', "seed.deal = 3\n"):
        path.write_text(text)
        experiment = Experiment.from_flat(read_toml(path))
        assert (experiment.seeds["deal"], experiment.seeds["order"]) == (3, 1)


def test_plain_text_needs_no_quotes():
    assert parse_settings(["recipe=zc-swish", "client.clip=norm:5", "rounds=3"]) == {
        "recipe": "zc-swish",
        "client.clip": "norm:5",
        "rounds": 3,
    }


@pytest.mark.parametrize(
    ("flat", "words"),
    [
        ({"partition.alpha": -1}, "partition.alpha=-1: input should be greater than 0"),
        ({"client.batch-size": 0}, "client.batch-size=0"),
        ({"client.batch-size": 2.5}, "client.batch-size=2.5"),
        ({"client.batch-size": "4"}, "client.batch-size=4: input should be a valid integer"),
        ({"rounds": True}, "rounds=True"),
        ({"client.lr": float("inf")}, "client.lr=inf: input should be a finite number"),
        ({"client.clip": "norm:0"}, "'norm:5'"),
        ({"client.clip": "agc"}, "client.clip=agc: should be 'auto', 'none', 'norm:C' or 'agc:λ'"),
        ({"client.clip": "agc:-1"}, "client.clip=agc:-1"),
        ({"client.clip": "agc:inf"}, "client.clip=agc:inf"),
        ({"client.clip": "none:1"}, "client.clip=none:1"),
        ({"client.clip": "auto:1"}, "client.clip=auto:1"),
        ({"client.momentum": 1.0}, "client.momentum=1.0"),
        ({"strategy.mu": 0.1}, "needs strategy.kind=fedprox"),
        ({"sampling.clients": 21}, "sampling.clients=21 is more than partition.clients=20"),
        ({"client.batchsize": 1}, "did you mean client.batch-size?"),
        ({"zzzz": 1}, "unknown knob zzzz; known: seed"),
        ({"client": 1}, "unknown knob client"),
        ({"network.stem-stride": 3}, "network.stem-stride=3"),
        ({"seed": -1}, "seed=-1"),
        ({"seed.order": -1}, "seed.order=-1"),
        ({"seed.weights": 1}, "unknown knob seed.weights; did you mean state.weights?"),
        ({"state.fixed-from": -1}, "state.fixed-from=-1"),
        (
            {"state.fixed-from": 3, "state.bn": "drop"},
            "state.fixed-from=3 needs statistics, and state.bn=drop keeps none",
        ),
    ],
)
def test_impossible_knobs_are_refused_in_one_line(flat, words):
    with pytest.raises(ConfigError) as error:
        Experiment.from_flat(flat)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("auto", ("norm", 5.0)),
        ("none", ("none", float("inf"))),
        ("norm:0.5", ("norm", 0.5)),
        ("agc:0.01", ("agc", 0.01)),
    ],
)
def test_a_clip_is_a_kind_and_a_bound(text, expected):
    assert parse_clip(Client(clip=text).clip) == expected


@pytest.mark.parametrize("setting", ["rounds", "=3", ""])
def test_a_setting_without_key_or_equals_is_refused(setting):
    with pytest.raises(ConfigError, match="KEY=VALUE"):
        parse_settings([setting])


def test_unreadable_toml_is_refused(tmp_path):
    for content in (b"rounds = ", b"\xff\xfe", b"rounds = [1, 2]"):
        (tmp_path / "bad.toml").write_bytes(content)
        with pytest.raises(ConfigError):
            read_toml(tmp_path / "bad.toml")
    with pytest.raises(ConfigError, match=r"missing\.toml"):
        read_toml(tmp_path / "missing.toml")


def test_experiments_can_not_be_changed():
    with pytest.raises(ValidationError):
        Experiment().rounds = 3


def test_identity_covers_every_knob_that_may_bear_on_a_result():
    base = Experiment()
    idle = {"run.dir": "/x", "run.resume": True, "signals.every": 2, "signals.images": 1}
    assert base.replace(idle).identity == base.identity
    assert relevant(base.replace(idle).to_flat()) == relevant(base.to_flat())
    others = {"seed": 2, "client.lr": 0.1, "recipe": "none", "device": "cpu", "seed.init": 2}
    identities = {base.replace({key: value}).identity for key, value in others.items()}
    assert len(identities | {base.identity}) == 6


@pytest.mark.parametrize(
    ("every", "measured"),
    [(0, []), (1, [0, 1, 2, 3, 4, 5]), (2, [0, 2, 4, 5]), (5, [0, 5]), (9, [0, 5])],
)
def test_signals_are_due_every_so_many_rounds_and_in_the_last(every, measured):
    signals = Experiment.from_flat({"signals.every": every}).signals
    assert [number for number in range(6) if signals.due(number, 5)] == measured


def test_every_knob_is_described():
    said = Experiment.describe()
    assert list(said) == list(Experiment().to_flat())
    assert all(text.endswith(".") and text != "None" for text in said.values())


def test_a_text_is_parsed_once_and_no_copy_keeps_the_value_of_another():
    fleet = Fleet(memory="1:0.5,4:0.5", speeds="lognormal:100:0.5")
    assert fleet.tiers == ((1, 0.5), (4, 0.5))
    assert fleet.tiers is fleet.tiers is Fleet(memory="1:0.5,4:0.5").tiers
    assert fleet.model_copy(update={"memory": "none", "speeds": "none"}).tiers == ()
    assert fleet.model_copy(update={"speeds": "none"}).lognormal is None
    assert fleet == Fleet(memory="1:0.5,4:0.5", speeds="lognormal:100:0.5")
    assert hash(fleet) == hash(Fleet(memory="1:0.5,4:0.5", speeds="lognormal:100:0.5"))
    assert pickle.loads(pickle.dumps(fleet)).lognormal == fleet.lognormal == (100.0, 0.5)
    client = Client(clip="agc:0.01")
    assert parse_clip(client.clip) == ("agc", 0.01)
    assert parse_clip(client.model_copy(update={"clip": "none"}).clip) == ("none", math.inf)
    knobs = Experiment().replace({"client.clip": "norm:2"})
    assert parse_clip(knobs.client.clip) == ("norm", 2.0)
    assert parse_clip(knobs.replace({"client.clip": "norm:3"}).client.clip) == ("norm", 3.0)
