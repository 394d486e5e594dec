import json
import sys
from itertools import product
from math import prod

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from experiments.studies.catalogue import STUDIES
from fl.config import Experiment
from fl.config.parsing import ConfigError
from fl.nn import relevant
from fl.simulation.study import Study, from_file, grid

AXES = st.fixed_dictionaries(
    {},
    optional={
        "recipe": st.sampled_from([["none"], ["none", "zc-swish"]]),
        "seed": st.lists(st.integers(1, 99), min_size=1, max_size=3, unique=True),
        "partition.alpha": st.lists(st.floats(0.01, 100), min_size=1, max_size=2, unique=True),
        "partition.kind": st.just(["iid", "dirichlet"]),
        "network.depth": st.sampled_from([["auto", 8], [8, 16], [3]]),
        "network.per-channel": st.just([True, False]),
        "client.clip": st.sampled_from([["none", "norm:5"], ["norm:1"]]),
    },
).filter(lambda axes: prod(len(values) for values in axes.values()) <= 16)
FEW = settings(max_examples=25, deadline=None)  # an experiment takes a millisecond to make


def steps(axes: dict[str, list]) -> list[list[dict]]:
    return [[{key: value} for value in values] for key, values in axes.items()]


@FEW
@given(AXES)
def test_a_grid_is_the_product_of_its_axes(axes):
    experiments = grid(Experiment(), *steps(axes))
    asked = [
        Experiment.from_flat(dict(zip(axes, values, strict=True)))
        for values in product(*axes.values())
    ]
    expected = {frozenset(relevant(experiment.to_flat()).items()) for experiment in asked}
    found = [frozenset(relevant(experiment.to_flat()).items()) for experiment in experiments]
    assert len(found) == len(expected)
    assert set(found) == expected


@FEW
@given(AXES)
def test_folders_are_unique_and_tell_exactly_what_varies(axes):
    experiments = grid(Experiment(), *steps(axes))
    names = Study("s", "?", experiments).folders()
    assert len(set(names)) == len(names)
    for name, experiment in zip(names, experiments, strict=True):
        flat = relevant(experiment.to_flat())
        first, *parts, last = name.split("_")
        assert (first, last) == (experiment.recipe, f"seed-{experiment.seed}")
        varying = [k for k, v in axes.items() if len(v) > 1 and k not in ("recipe", "seed")]
        varying = [key for key in varying if key in flat]
        assert len(parts) == len(varying)
        for key in varying:
            assert any(part.endswith(str(flat[key])) for part in parts)
        assert not set(name) & set("/\\ \n")


def test_folders_are_named_for_people():
    experiments = grid(
        Experiment(),
        [{"recipe": "none"}, {"recipe": "zc-swish"}],
        [{"partition.kind": "iid"}, {"partition.alpha": 0.1}],
        [{"seed": 1}, {"seed": 2}],
    )
    assert Study("s", "?", experiments).folders() == [
        "none_iid_seed-1",
        "zc-swish_iid_seed-1",
        "none_dirichlet_seed-1",
        "zc-swish_dirichlet_seed-1",
        "none_iid_seed-2",
        "zc-swish_iid_seed-2",
        "none_dirichlet_seed-2",
        "zc-swish_dirichlet_seed-2",
    ]


@pytest.mark.parametrize(
    "one_more", [Experiment(), Experiment.from_flat({"run.dir": "/elsewhere"})]
)
def test_an_experiment_given_twice_is_refused(one_more):
    with pytest.raises(ConfigError, match="twice"):
        Study("s", "?", (Experiment(), Experiment.from_flat({"seed": 2}), one_more))


def test_a_study_without_experiments_is_refused():
    with pytest.raises(ConfigError, match="s has no experiments"):
        Study("s", "?", ())


OURS = [(name, scale) for name, scales in STUDIES.items() for scale in scales]


@pytest.mark.parametrize(("name", "scale"), OURS)
def test_our_own_studies_can_be_made_and_are_named_by_their_key(name, scale):
    study = STUDIES[name][scale]()
    assert study.name == (name if scale == "small" else f"{name}-{scale}")
    assert study.question.endswith("?")


@pytest.mark.parametrize("scale", ["small", "full"])
def test_heterogeneity_asks_every_recipe_on_every_deal_with_both_strategies(scale):
    experiments = STUDIES["heterogeneity"][scale]().experiments
    recipes = {"batchnorm", "groupnorm", "zc-swish", "salunet"}
    alphas = {"iid", 0.05, 0.1, 0.3, 1.0}
    cells: dict[tuple, set[int]] = {}
    for knobs in experiments:
        even = knobs.partition.kind == "iid"
        skew = "iid" if even else knobs.partition.alpha
        cells.setdefault((knobs.recipe, skew, knobs.strategy.kind), set()).add(knobs.seed)
    wanted = set(product(recipes, alphas, ("fedavg", "fedprox")))
    assert wanted <= cells.keys()
    assert all(len(seeds) >= 3 for seeds in cells.values())


def test_memory_tiers_leave_all_else_equal():
    experiments = STUDIES["memory-tiers"]["small"]().experiments
    tiered = [knobs for knobs in experiments if knobs.fleet.tiers]
    equal = [knobs.replace({"fleet.memory": "none"}) for knobs in tiered]
    assert set(equal) == {knobs for knobs in experiments if not knobs.fleet.tiers}
    assert {size for knobs in tiered for size, _ in knobs.fleet.tiers} == {1, 4, 16}


def test_rates_are_chosen_on_a_seed_that_no_other_study_uses():
    made = {name: [make() for make in scales.values()] for name, scales in STUDIES.items()}
    tuning = [knobs for study in made.pop("learning-rates") for knobs in study.experiments]
    used = {knobs.seed for studies in made.values() for s in studies for knobs in s.experiments}
    assert not {knobs.seed for knobs in tuning} & used
    assert all(knobs.data.validation for knobs in tuning)


def test_a_study_takes_knobs_that_it_is_not_about():
    study = STUDIES["heterogeneity"]["small"]()
    fixed = study.fixing({"data.name": "some/fashion mnist", "rounds": 4})
    assert fixed.name == "heterogeneity_some-fashion-mnist_rounds-4"
    assert fixed.folders() == study.folders()
    assert {(k.data.name, k.rounds) for k in fixed.experiments} == {("some/fashion mnist", 4)}
    for key, value in {
        "seed": 7,
        "client.lr": 0.1,
        "strategy.kind": "fedprox",
        "partition.kind": "iid",
    }.items():
        with pytest.raises(ConfigError, match=f"heterogeneity is about {key}; leave that to it"):
            study.fixing({key: value})
    with pytest.raises(ConfigError, match="unknown knob rond"):
        study.fixing({"rond": 7})


def test_a_study_s_question_lies_beside_its_runs(tmp_path):
    study = Study("s", "Is ½ enough?", (Experiment(),), published="A third was.")
    study.begin(tmp_path / "new", "fednf study s")
    about = json.loads((tmp_path / "new" / "study.json").read_text(encoding="utf-8"))
    expected = {"name": "s", "question": "Is ½ enough?", "command": "fednf study s"}
    expected |= {"published": "A third was.", "runs": {"zc-swish_seed-1": 10}}
    assert about.pop("file_sha256")
    assert about == expected
    study.begin(tmp_path / "new", "fednf study s --jobs 1")


@pytest.mark.parametrize("content", ["{", "[]", "{}", "\udcff"])
def test_a_damaged_question_is_named(tmp_path, content):
    (tmp_path / "study.json").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(ConfigError, match=r"study\.json is damaged"):
        Study("s", "?", (Experiment(),)).begin(tmp_path, "")


FILE = """
from dataclasses import dataclass
from fl.simulation.study import Study, grid
from fl.config import Experiment
from fl.nn import relevant
@dataclass
class Axis:
    seeds: tuple[int, ...] = (1, 2)
def axis():
    return [{"seed": seed} for seed in Axis().seeds]
STUDY = Study("mine", "Why?", grid(Experiment(), axis()))
"""


def test_a_file_s_study_is_found_and_the_file_leaves_no_trace(tmp_path):
    """Not even where it is called as a module that we need, as `json.py`."""
    path = tmp_path / "json.py"
    path.write_text(FILE)
    study = from_file(path)
    assert (study.name, len(study.experiments)) == ("mine", 2)
    assert list(tmp_path.iterdir()) == [path]
    assert sys.modules["json"] is json


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("STUDY = (", "mine.py:1: .* never closed"),
        ("import nothing_of_that_name", "ModuleNotFoundError"),
        ("STUDIES = 1", "has no STUDY"),
        ("STUDY = 1", "has no STUDY"),
        ("\x00", "mine.py"),
    ],
)
def test_a_file_without_a_study_is_refused_by_its_name(tmp_path, text, complaint):
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(ConfigError, match=complaint) as refusal:
        from_file(tmp_path / "mine.py")
    assert "mine.py" in str(refusal.value)
    with pytest.raises(ConfigError, match="no study file"):
        from_file(tmp_path)


def test_data_beside_a_study_file_are_found_from_anywhere(tmp_path, monkeypatch):
    (tmp_path / "study").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "study" / "mine.npz").touch()
    (tmp_path / "study" / "study.py").write_text(
        "from fl.config import Experiment\n"
        "from fl.simulation.study import Study\n"
        'names = ("mine.npz", "fashion-mnist-small", "not-there.npz")\n'
        'made = tuple(Experiment.from_flat({"data.name": name}) for name in names)\n'
        'STUDY = Study("mine", "which?", made)\n'
    )
    monkeypatch.chdir(tmp_path / "elsewhere")
    found = [e.data.name for e in from_file(tmp_path / "study" / "study.py").experiments]
    beside = str(tmp_path / "study" / "mine.npz")
    assert found == [beside, "fashion-mnist-small", "not-there.npz"]
    (tmp_path / "elsewhere" / "mine.npz").touch()  # from where the command is typed goes first
    assert from_file(tmp_path / "study" / "study.py").experiments[0].data.name == "mine.npz"
