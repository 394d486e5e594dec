"""The study that answers: its experiments are what its plan says they are."""

import itertools
from collections import Counter
from functools import cache

import pytest

from experiments.studies.answer import ANSWER
from experiments.studies.answer.batch import RATES as BATCH_RATES
from experiments.studies.answer.conditions import BETWEEN, EVEN, FULL, SKEWED, contenders
from experiments.studies.answer.primary import RATES
from experiments.studies.catalogue import STUDIES
from experiments.studies.tuning.contenders import of_study
from experiments.studies.tuning.plan import Plan
from fl.config import Experiment
from fl.data import deal
from fl.server.journal import Journal
from fl.simulation import run

SEEDS = ("deal", "init", "sampling", "order")
SKEWS = [EVEN, BETWEEN, SKEWED]


def seeds(study) -> set[int]:
    return {knobs.seeds[part] for knobs in study.experiments for part in SEEDS}


@cache
def seeds_elsewhere() -> set[int]:
    """Return all seeds of studies that do not answer."""
    others = [of for known, of in STUDIES.items() if known not in ANSWER]
    return {seed for of in others for make in of.values() for seed in seeds(make())}


@pytest.mark.parametrize("name", ANSWER)
@pytest.mark.parametrize("scale", ["small", "full"])
def test_no_seed_is_used_by_another_study(name, scale):
    here = seeds(ANSWER[name][scale]())
    assert not here & seeds_elsewhere()
    if name not in ("answer-primary", "answer-signals"):
        assert not here & set(FULL.seeds)  # those of the confirmatory block


@pytest.mark.parametrize("scale", ["small", "full"])
def test_runs_whose_signals_are_measured_are_those_of_the_primary_block(scale):
    primary = {one.identity: one for one in ANSWER["answer-primary"][scale]().experiments}
    for one in ANSWER["answer-signals"][scale]().experiments:
        assert one.signals.due(one.rounds // 2, one.rounds)
        assert one.replace({"signals.every": 0, "signals.images": 32}) == primary[one.identity]


def test_each_contender_is_tuned_on_even_and_on_skewed_clients():
    for scale in ANSWER["answer-tuning"].values():
        study = scale()
        base, rows = of_study(study, {"client.lr"})
        assert len(rows) == (len(contenders(base.rounds)) - 1) * 2 == 20
        plan = Plan(base, rows, ({"client.lr": 0.1},), (3, 6))
        tried = {
            knobs.identity
            for row in rows
            for _, knobs in plan.runs(row, plan.candidates[0]).values()
        }
        asked = {knobs.replace({"client.lr": 0.1}).identity for knobs in study.experiments}
        assert tried == asked, "contenders are the study's experiments, at the tuning seed"


def test_noise_crosses_deals_initial_weights_and_orders():
    for scale in ANSWER["answer-noise"].values():
        study = scale()
        assert len(study.experiments) == 2 * 2 * 3 * 3 * 2
        drawn = Counter(
            (knobs.recipe, knobs.partition.kind, *(knobs.seeds[part] for part in SEEDS))
            for knobs in study.experiments
        )
        assert set(drawn.values()) == {1}
        assert len({knobs.seeds["sampling"] for knobs in study.experiments}) == 1


@pytest.mark.parametrize("scale", ["small", "full"])
def test_blocks_are_whole_before_the_next_begins(scale):
    study = ANSWER["answer-primary"][scale]()
    played = [knobs.seed for knobs in study.experiments]
    assert played == sorted(played)
    assert set(Counter(played).values()) == {len(RATES) * len(SKEWS)} == {24}
    block = [k.replace({"seed": 0}).identity for k in study.experiments if k.seed == played[0]]
    last = [k.replace({"seed": 0}).identity for k in study.experiments if k.seed == played[-1]]
    assert block == last


@pytest.mark.parametrize("scale", ["small", "full"])
def test_a_block_of_batches_differs_in_batch_size_and_rate_alone(scale):
    study = ANSWER["answer-batch"][scale]()
    blocks = [1201, 1202] if scale == "small" else [*range(1201, 1209)]
    rates = {(batch, name): rate for batch, of in BATCH_RATES.items() for name, rate in of.items()}
    recipes = {"bn-average": "batchnorm", "zc-swish": "zc-swish", "salunet": "salunet"}
    asked = [
        (seed, recipes[name], batch, rate)
        for seed, ((batch, name), rate) in itertools.product(blocks, rates.items())
    ]
    played = [(k.seed, k.recipe, k.client.batch_size, k.client.lr) for k in study.experiments]
    assert Counter(played) == Counter(asked)
    assert [seed for seed, *_ in played] == sorted(seed for seed, *_ in played)
    assert {k.partition.alpha for k in study.experiments} == {SKEWED["partition.alpha"]}
    critical = {k.recipe for k in study.experiments if k.network.init == "critical"}
    assert critical == {"zc-swish", "salunet"}
    same = {"client.batch-size": 4, "client.lr": 0.1, "recipe": "none", "network.init": "auto"}
    assert len({k.replace({**same, "seed": 0}).identity for k in study.experiments}) == 1


def test_every_contender_trains_as_much_at_every_skew():
    small = ANSWER["answer-noise"]["small"]().experiments[0]
    sizes = {tuple(sorted(map(len, deal(small.replace({"seed": 1, **skew}))))) for skew in SKEWS}
    assert len(sizes) == 1


def test_the_eleven_contenders_are_experiments_of_one_network():
    found = [FULL.base.replace(row) for row in contenders(FULL.base.rounds).values()]
    assert len({one.identity for one in found}) == len(found) == 11
    assert {Experiment.from_flat(one.to_flat()).network.kind for one in found} == {"plainnet"}
    free = {one.recipe for one in found if one.network.init == "critical"}
    assert free == {"none", "zc-swish", "salunet"}


def test_one_recipe_under_two_names_ends_with_equal_bytes(tiny, tmp_path):
    """The second control of the plan."""
    names = {"recipe": "groupnorm-2"}, {"recipe": "groupnorm", "network.groups": 2}
    ended = [
        run(tiny({**name, "network.width": 8}), Journal(tmp_path / name["recipe"]))
        for name in names
    ]
    assert ended[0]["model_sha256"] == ended[1]["model_sha256"]
