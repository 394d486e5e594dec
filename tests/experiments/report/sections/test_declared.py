"""Verdicts keep to what a study declared: reference, family, margin, endpoint."""

import csv
import io
import json
import shutil
from collections import Counter
from math import fsum

import pytest

import fl
from experiments.report import csv_files, verdicts
from experiments.report.results import read
from experiments.report.verdicts import wording
from experiments.report.verdicts.course import comparisons, looked_at, standing, wanted
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
    assert wording.declared(results).startswith("No comparison was declared")


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
    told = wording.declared(declare(reference={"recipe": "none"}, family=[{"recipe": "zc-swish"}]))
    assert "confirmatory: ZC-Swish against ReLU, margin 1.5 points" in told


def test_what_was_declared_after_runs_is_exploratory(declare):
    results = declare(
        reference={"recipe": "none"}, family=[{"recipe": "zc-swish"}], runs_done_before=7
    )
    assert "declared when 7 runs were done, so all are exploratory" in wording.declared(results)
    assert not any(verdicts.confirmatory(results, cell) for cell in results.cells.values())


def asked(seeds=SEEDS, **contrasts):
    """Return the study whose runs the folder has."""
    recipes = [{"recipe": name} for name in GAINS]
    skews = [{"partition.kind": kind} for kind in ("iid", "dirichlet")]
    base = fl.Experiment.from_flat({"rounds": 3})
    return fl.Study(
        "s",
        "?",
        fl.grid(base, recipes, skews, fl.each("seed", seeds)),
        contrasts=fl.Contrasts(**contrasts),
    )


BN, ZC, RELU = ({"recipe": name} for name in ("batchnorm", "zc-swish", "none"))


@pytest.mark.parametrize(
    ("contrasts", "expected"),
    [
        ({}, 6),
        ({"reference": RELU}, 6),
        ({"reference": BN, "family": (ZC, RELU)}, 4),
        ({"reference": BN, "family": ({**ZC, "partition.kind": "iid"},)}, 1),
        ({"reference": {**BN, "partition.kind": "iid"}}, 7),  # who differ in the deal, too
    ],
)
def test_as_many_comparisons_are_declared_as_a_done_study_judges(declare, contrasts, expected):
    results = declare(**{**contrasts, "family": list(contrasts.get("family", ()))})
    found = [
        one
        for condition in results.conditions
        for series, one in verdicts.judged(results, condition).items()
        if verdicts.confirmatory(results, results.cells[series, condition])
    ]
    assert len(found) == len(comparisons(asked(**contrasts))) == expected


@pytest.mark.parametrize("begun", [True, False])
def test_a_study_half_done_is_no_less_strict_than_when_it_is_done(tmp_path, folder, begun):
    """Each verdict of a part of the cells has the p values of the whole, or larger ones."""
    contrasts = {"reference": BN, "family": [ZC, RELU], "margin": 1.5, "endpoint": "late-mean"}
    part = tmp_path / "part"
    shutil.copytree(folder, part)
    about = {"name": "s", "contrasts": {**contrasts, "comparisons": 4}}
    (part / "study.json").write_text(json.dumps(about))
    whole = named(read(part))
    assert "so far" not in wording.declared(read(part))
    later = ("none-*", "groupnorm-iid-*", "*-dirichlet-*")
    for run in (run for pattern in later for run in part.glob(pattern)):
        if begun and run.exists():
            (run / "result.json").unlink(missing_ok=True)
        elif run.exists():
            shutil.rmtree(run)
    half = named(read(part))
    assert half.keys() == {("ZC-Swish", "iid")}
    assert "1 of 4 have runs so far" in wording.declared(read(part))
    (one,), all_done = half.values(), whole["ZC-Swish", "iid"]
    assert one.alpha == all_done.alpha == 0.05 / 4
    assert one.p >= all_done.p
    assert one.p_equivalent >= all_done.p_equivalent


def test_contenders_that_are_begun_count_before_they_are_done(tmp_path, folder):
    part = tmp_path / "part"
    shutil.copytree(folder, part)
    for run in part.glob("groupnorm-iid-*"):
        (run / "result.json").unlink()
    half = named(read(part))
    assert half.keys() == named(read(folder)).keys() - {("GroupNorm", "iid")}
    assert {one.alpha for one in half.values()} == {0.05 / 3}


def test_runs_csv_has_what_is_compared(folder):
    (row, *_) = csv.DictReader(io.StringIO(csv_files.runs(read(folder))))
    with (folder / row["run"] / "rounds.jsonl").open() as file:
        after = [json.loads(line)["test_accuracy"] for line in file][1:]
    assert float(row["late_accuracy"]) == pytest.approx(fsum(after) / 3, abs=1e-15)


def test_with_looks_a_study_is_judged_at_them_alone(declare):
    """At seven seeds p = 2/2⁷, which two tests and one look allow, and two looks don't."""
    family = {"reference": BN, "family": [ZC, RELU], "comparisons": 4}
    family["blocks"] = [[seed] * 5 for seed in range(1, 13)]
    family["cells"] = comparisons(asked(reference=BN, family=(ZC, RELU)))
    at_once = named(declare(**family))
    early = named(declare(**family, looks=[7, 9]))  # the second is to come
    assert at_once["ZC-Swish", "iid"].verdict == "BETTER"
    assert (early["ZC-Swish", "iid"].n, early["ZC-Swish", "iid"].alpha) == (7, 0.05 / 2 / 4)
    assert early["ZC-Swish", "iid"].verdict == "UNDECIDED"
    assert early["GroupNorm", "iid"].n == 8, "who is not asked about has no looks"
    results = declare(**family, looks=[9, 12])
    assert named(results)["ZC-Swish", "iid"].verdict is None
    assert "with 5 seeds" not in wording.too_few(results)
    results = declare(**family, looks=[7, 8])
    assert named(results)["ZC-Swish", "iid"].n == 8
    assert "judged at 7 and 8 seeds alone" in wording.declared(results)
    assert "below 0.025 at each look, which are after 7 and 8 seeds" in wording.method(results)
    late = declare(**family, looks=[9, 12], runs_done_before=1)
    assert named(late)["ZC-Swish", "iid"].verdict is not None, "exploratory ones have no looks"


@pytest.mark.parametrize("looks", [(4, 8), (6, 7), (8, 6), (6, 6, 8), (6, 9)])
def test_looks_that_are_none_are_refused(looks):
    with pytest.raises(fl.ConfigError, match="rise from 5 or more to 8, the number of the study"):
        asked(reference=BN, looks=looks)


def test_what_was_declared_before_there_were_looks_stays_declared():
    contrasts = fl.Contrasts(BN, (ZC,))
    before = {"reference": BN, "family": [ZC], "margin": None, "endpoint": "late-mean"}
    about = {"blocks": [[1, 1, 1, 1, 1]], "rounds": [60]}

    def late(contrasts, before, **others):
        return contrasts.declared(before, 5, 2, {**about, **others})["runs_done_before"]

    assert late(contrasts, {**before, "runs_done_before": 0}) == 0
    with_looks = fl.Contrasts(BN, (ZC,), looks=(8,))
    assert late(with_looks, before) == 5
    told = with_looks.declared({}, 0, 2, about)
    assert late(with_looks, told) == 0
    assert late(with_looks, told, blocks=[[2, 2, 2, 2, 2]]) == 5, "another race"
    assert late(with_looks, told, rounds=[120]) == 5, "another race"


def done(one, folder, write_run, accuracy):
    """Write the runs of a study as far as a function of its experiments says how accurate."""
    folder.mkdir()
    one.begin(folder, "fednf study s", comparisons(one))
    for name, experiment in zip(one.folders(), one.experiments, strict=True):
        if (late := accuracy(experiment)) is not None:
            write_run(folder / name, [0.1, late, late, late], experiment.to_flat())
    return folder


def left(one, folder):
    """Return the experiments that are wanted by now."""
    names = dict(zip(one.folders(), one.experiments, strict=True))
    return [names[name] for name in wanted(one, standing(one, folder))]


def clear(experiment):
    """ZC-Swish is ahead of ReLU; GroupNorm with skewed clients at every second seed alone."""
    odd = experiment.recipe == "groupnorm" and experiment.partition.kind == "dirichlet"
    gain = GAINS[experiment.recipe] - 0.1 * (odd and experiment.seed % 2)
    return 0.5 + 0.01 * experiment.seed + gain if experiment.seed < 9 else None


def test_what_is_decided_gets_no_further_runs(tmp_path, write_run):
    family = (ZC, {"recipe": "groupnorm", "partition.kind": "dirichlet"})
    one = asked(range(1, 10), reference=RELU, family=family, margin=1.0, looks=(8, 9))
    assert {experiment.seed for experiment in left(one, tmp_path / "none")} == set(SEEDS)
    part = done(one, tmp_path / "part", write_run, clear)
    found = {key: judged.verdict for key, judged in named(read(part)).items()}
    assert found["ZC-Swish", "iid"] == found["ZC-Swish", "Dirichlet"] == "BETTER"
    assert found["GroupNorm", "Dirichlet"] == "UNDECIDED"
    stands = standing(one, part)
    assert looked_at(stands).startswith("look after 8 seeds: ")
    assert looked_at(stands).count("BETTER") == 2
    assert not stands.over
    last = [experiment for experiment in left(one, part) if experiment.seed == 9]
    assert {experiment.partition.kind for experiment in last} == {"dirichlet"}
    assert {experiment.recipe for experiment in last} == GAINS.keys() - {"zc-swish"}
    about = json.loads((part / "study.json").read_text())
    about["contrasts"]["runs_done_before"] = 3
    (part / "study.json").write_text(json.dumps(about))
    assert left(one, part) == list(one.experiments), "what is exploratory decides nothing"


def test_what_a_look_came_before_is_still_wanted(tmp_path, write_run):
    """A run that was interrupted, or failed, while others decided goes on when it is repeated."""
    one = asked(range(1, 10), reference=RELU, family=(ZC,), margin=1.0, looks=(8, 9))

    def lacking(experiment):
        missing = experiment.recipe == "groupnorm" and experiment.seed == 8
        return None if missing else clear(experiment)

    part = done(one, tmp_path / "part", write_run, lacking)
    assert standing(one, part).over
    assert {(e.recipe, e.seed) for e in left(one, part)} == {
        (recipe, seed) for recipe in GAINS for seed in SEEDS
    }


def test_a_condition_that_nothing_was_declared_of_gets_all_seeds(tmp_path, write_run):
    family = ({**ZC, "partition.kind": "iid"},)
    one = asked(range(1, 10), reference=RELU, family=family, margin=1.0, looks=(8, 9))
    part = done(one, tmp_path / "part", write_run, clear)
    found = Counter(experiment.partition.kind for experiment in left(one, part))
    assert found == {"iid": 4 * 8, "dirichlet": 4 * 9}


def test_runs_that_a_study_does_not_ask_for_hold_up_no_look(tmp_path, write_run):
    """Other contenders and other seeds may lie there, and runs of fewer rounds than asked for."""
    one = asked(range(1, 10), reference=RELU, margin=1.0, looks=(8, 9))
    part = done(one, tmp_path / "part", write_run, clear)
    before, stands = named(read(part)), standing(one, part)
    flat = one.experiments[0].to_flat()
    for name, changes in (("swish", {"recipe": "swish"}), ("other", {"seed": 77})):
        write_run(part / name, [0.1, 0.5, 0.5, 0.5], {**flat, **changes})
    assert standing(one, part) == stands
    after = named(read(part))
    assert {key: after[key] for key in before} == before
    assert {key: one.n for key, one in after.items() if key not in before}.keys() == {
        ("Swish", "iid")
    }
    longer = tuple(experiment.replace({"rounds": 5}) for experiment in one.experiments)
    longer = fl.Study("s", "?", longer, contrasts=one.contrasts)
    assert not standing(longer, part).looks, "runs of three rounds are no runs of five"
    assert len(left(longer, part)) == 8 * 8


def test_a_look_waits_for_all_of_its_runs(tmp_path, write_run):
    """One that is interrupted goes on with what the look lacks, and nothing further."""
    one = asked(range(1, 10), reference=RELU, margin=1.0, looks=(8, 9))

    def lacking(experiment):
        missing = (experiment.recipe, experiment.seed) == ("zc-swish", 8)
        return None if missing else clear(experiment)

    part = done(one, tmp_path / "part", write_run, lacking)
    assert not standing(one, part).looks
    assert {experiment.seed for experiment in left(one, part)} == set(SEEDS)
    assert {judged.verdict for judged in named(read(part)).values()} == {None}
    played = [experiment.seed for experiment in left(one, part)]
    assert played == sorted(played), "seed by seed"


def test_looks_need_scipy(monkeypatch):
    monkeypatch.setattr(verdicts, "find_spec", lambda name: None)
    with pytest.raises(fl.ConfigError, match='extra "stats"'):
        comparisons(asked(reference=BN, looks=(6, 8)))


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([{**BN, "seed": seed} for seed in range(1, 7)], "nothing is compared"),
        (
            [{**BN, "seed": seed} for seed in range(1, 7)]
            + [{**ZC, "seed": seed} for seed in range(1, 6)],
            "ZC-Swish does not have all seeds",
        ),
    ],
)
def test_looks_that_can_find_nothing_are_refused(rows, told):
    one = fl.Study("s", "?", fl.grid(fl.Experiment(), rows), contrasts=fl.Contrasts(BN, looks=(6,)))
    with pytest.raises(fl.ConfigError, match=told):
        comparisons(one)
