"""Verdicts keep to what a study declared: reference, family, margin, endpoint."""

import json

import pytest

from experiments.report import verdicts
from experiments.report.results import read
from experiments.statistics.verdicts import judge

GAINS = {"batchnorm": 0.0, "zc-swish": 0.03, "groupnorm": 0.011, "none": -0.02}
SEEDS = range(1, 9)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, write_run):
    """Write four recipes, even and skewed, eight seeds; the last round is turned round."""
    folder = tmp_path_factory.mktemp("declared")
    for recipe, gain in GAINS.items():
        for kind in ("iid", "dirichlet"):
            for seed in SEEDS:
                noise = 0.002 * ((seed * (len(recipe) + 3)) % 5 - 2)
                late = 0.5 + 0.01 * seed + gain + noise - 0.1 * (kind == "dirichlet")
                knobs = {"recipe": recipe, "seed": seed, "partition.kind": kind}
                rounds = [0.1, late, late + 3 * gain, late - 3 * gain]
                write_run(folder / f"{recipe}-{kind}-{seed}", rounds, knobs)
    return folder


@pytest.fixture
def declare(folder):
    """Return a function that reads the runs as those of a study that declared something."""

    def declare(**contrasts):
        whole = {"reference": {}, "family": [], "margin": 1.5, "endpoint": "late-mean"}
        told = {**whole, **contrasts} if contrasts else None
        (folder / "study.json").write_text(json.dumps({"name": "s", "contrasts": told}))
        return read(folder)

    yield declare
    (folder / "study.json").unlink()


def named(results):
    """Return every judgement by names."""
    return {
        (str(series), str(condition).partition(" ")[0]): one
        for condition in results.conditions
        for series, one in verdicts.judged(results, condition).items()
    }


def test_nothing_declared_is_one_family_a_condition_and_exploratory(declare):
    results = declare()
    found = named(results)
    assert {place for _, place in found} == {"iid", "Dirichlet"}
    assert {one.alpha for one in found.values()} == {0.05 / 3}
    assert verdicts.declared(results).startswith("No comparison was declared")


def test_the_declared_reference_is_the_one(declare):
    found = named(declare(reference={"recipe": "none"}))
    assert {series for series, _ in found} == {"BatchNorm", "ZC-Swish", "GroupNorm"}
    assert found["ZC-Swish", "iid"].mean == pytest.approx(0.05, abs=0.004)


def test_the_declared_family_is_one_over_all_conditions(declare):
    results = declare(
        reference={"recipe": "batchnorm"}, family=[{"recipe": "zc-swish"}, {"recipe": "none"}]
    )
    found = named(results)
    assert {one.alpha for (name, _), one in found.items() if name != "GroupNorm"} == {0.05 / 4}
    assert {one.alpha for (name, _), one in found.items() if name == "GroupNorm"} == {0.05}
    cells = {(str(s), str(c).partition(" ")[0]): cell for (s, c), cell in results.cells.items()}
    by_hand = {
        key: cells[key].gain_over(cells["BatchNorm", key[1]]).values
        for key in found
        if key[0] != "GroupNorm"
    }
    expected = judge(by_hand, 0.015)
    assert {key: found[key] for key in expected} == expected
    one = declare(family=[{"recipe": "zc-swish", "partition.kind": "iid"}])
    assert named(one)["ZC-Swish", "iid"].alpha == 0.05
    assert named(one)["ZC-Swish", "Dirichlet"].alpha == 0.05 / 3


def test_the_declared_margin_parts_small_from_large(declare):
    assert named(declare(margin=0.5))["GroupNorm", "iid"].verdict == "BETTER"
    assert named(declare(margin=1.5))["GroupNorm", "iid"].verdict == "BETTER-SMALL"


@pytest.mark.parametrize(("endpoint", "gain"), [("late-mean", 0.03), ("last-round", -0.06)])
def test_the_declared_endpoint_is_compared(declare, endpoint, gain):
    found = named(declare(endpoint=endpoint))
    assert found["ZC-Swish", "iid"].mean == pytest.approx(gain, abs=0.004)


def test_the_validated_endpoint_is_the_test_figure_of_the_best_validated_round(tmp_path, write_run):
    write_run(tmp_path / "a", [0.1, 0.5, 0.6, 0.7])
    path = tmp_path / "a" / "rounds.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line, score in zip(lines, (0.95, 0.3, 0.9, 0.2), strict=True):
        line["validation_accuracy"] = score  # that of the untrained network does not count
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "study.json").write_text(json.dumps({"contrasts": {"endpoint": "validated"}}))
    (run,) = read(tmp_path).runs
    assert run.outcome == 0.6


def test_the_page_says_what_was_declared(declare):
    told = verdicts.declared(declare(reference={"recipe": "none"}, family=[{"recipe": "zc-swish"}]))
    assert "confirmatory: ZC-Swish against ReLU, margin 1.5 points" in told


def test_what_was_declared_after_runs_is_exploratory(declare):
    results = declare(
        reference={"recipe": "none"}, family=[{"recipe": "zc-swish"}], runs_done_before=7
    )
    assert "declared when 7 runs were done, so all are exploratory" in verdicts.declared(results)
    assert not any(verdicts.confirmatory(results, cell) for cell in results.cells.values())
