import typing

import pytest

from experiments.report import words
from experiments.report.labels import data_set, group, settings
from experiments.report.results import read
from fl.config import Experiment, Partition
from fl.nn import relevant

KINDS = typing.get_args(typing.get_args(Partition.model_fields["kind"].annotation)[0])
WATCH = {"partition.kind": "natural", "data.name": "watch"}


def partition(flat):
    return settings(Experiment().replace(flat).to_flat())["partition"]


@pytest.mark.parametrize(
    ("flat", "text"),
    [
        ({"partition.kind": "iid"}, "iid"),
        ({"partition.kind": "dirichlet-balanced"}, "Balanced Dirichlet α = 0.3"),
        ({"partition.kind": "mixture"}, "Dirichlet α = 0.3, sizes α = 0.5"),
        ({"partition.kind": "quantity"}, "Sizes α = 0.3"),
        ({"partition.kind": "shards"}, "Shards, 2 a client"),
        ({"partition.kind": "label-count", "partition.labels": 3}, "Labels, 3 a client"),
        ({"partition.kind": "feature-noise"}, "Feature noise σ = 0.1"),
        ({"partition.kind": "natural"}, "Natural α = 0.3"),
        ({**WATCH, "partition.clients": 20}, "Natural α = 0.3"),
        ({**WATCH, "partition.clients": 10}, "Natural"),
    ],
)
def test_partitions_in_words(flat, text):
    assert partition(flat).text == text


@pytest.mark.parametrize("kind", KINDS)
def test_what_bears_on_a_deal_is_told_once(kind):
    """Either in the partition's name or as a setting of its own."""
    base = Experiment().replace({"partition.kind": kind})
    changes = {"alpha": 2.0, "min-size": 7, "quantity-alpha": 2.0, "shards": 3, "labels": 3}
    for name, value in {**changes, "noise": 0.4}.items():
        before = settings(base.to_flat())
        after = settings(base.replace({f"partition.{name}": value}).to_flat())
        differing = [aspect for aspect in after if after[aspect] != before[aspect]]
        assert len(differing) == (f"partition.{name}" in relevant(base.to_flat()))
        assert set(differing) <= {"partition", f"partition.{name}"}


def test_partitions_sort_by_skew():
    kinds = [
        [{"partition.kind": "iid"}, {"partition.alpha": 1.0}, {"partition.alpha": 0.1}],
        [{"partition.kind": "shards", "partition.shards": count} for count in (10, 2)],
        [{"partition.kind": "feature-noise", "partition.noise": noise} for noise in (0.1, 0.5)],
    ]
    for flats in kinds:
        found = [partition(flat) for flat in flats]
        assert sorted(found) == found


def flat(**knobs):
    return (
        Experiment()
        .replace({k.replace("__", ".").replace("_", "-"): v for k, v in knobs.items()})
        .to_flat()
    )


def test_a_rate_of_its_own_belongs_to_the_network_and_is_no_condition():
    own = [
        flat(recipe=recipe, client__lr=rate, partition__alpha=alpha)
        for recipe, rate in (("batchnorm", 0.1), ("zc-swish", 0.05), ("none", 0.05))
        for alpha in (0.1, 1.0)
    ]
    conditions = {str(condition) for _, condition in group(own)}
    assert conditions == {"Dirichlet α = 0.1", "Dirichlet α = 1"}
    compared = [*own, flat(recipe="none", client__lr=0.1, partition__alpha=0.1)]
    assert "Dirichlet α = 0.1, learning rate 0.1" in {str(where) for _, where in group(compared)}


def test_initial_weights_of_its_own_belong_to_the_network_and_are_no_condition():
    """Or BatchNorm would be compared with no network that begins at critical weights."""
    kinds = {"batchnorm": "auto", "nf": "auto", "zc-swish": "critical"}
    own = [
        flat(recipe=recipe, network__init=kind, **deal)
        for recipe, kind in kinds.items()
        for deal in DEALS
    ]
    assert {str(where) for _, where in group(own)} == {"iid", "Dirichlet α = 0.3"}
    compared = [*own, flat(recipe="zc-swish", network__init="auto", partition__kind="iid")]
    assert "iid, critical initial weights" in {str(where) for _, where in group(compared)}


def test_the_page_says_who_begins_with_which_weights(tmp_path, write_run):
    for recipe, kind in (("batchnorm", "auto"), ("nf", "auto"), ("zc-swish", "critical")):
        write_run(tmp_path / recipe, [0.1, 0.5], {"recipe": recipe, "network.init": kind})
    told = str(words.initial_weights(read(tmp_path)))
    assert "auto for BatchNorm and NF" in told
    assert "critical for ZC-Swish" in told
    write_run(tmp_path / "more", [0.1, 0.5], {"recipe": "zc-swish", "network.init": "auto"})
    assert words.initial_weights(read(tmp_path)) is None


def test_a_rate_of_its_own_for_every_batch_size_is_no_condition_either():
    rates = {("none", 1): 0.02, ("none", 4): 0.04, ("zc-swish", 1): 0.01, ("zc-swish", 4): 0.04}
    own = [
        Experiment().replace({"recipe": recipe, "client.batch-size": size, "client.lr": rate})
        for (recipe, size), rate in rates.items()
    ]
    names = [str(where) for _, where in group([experiment.to_flat() for experiment in own])]
    assert names == ["batch size 1", "batch size 4"] * 2
    shared = [
        experiment.replace({"client.lr": 0.1 / experiment.client.batch_size}) for experiment in own
    ]
    names = [str(where) for _, where in group([experiment.to_flat() for experiment in shared])]
    assert names == ["batch size 1, learning rate 0.1", "batch size 4, learning rate 0.025"] * 2


def test_policies_of_statistics_are_contenders_since_only_batchnorm_has_them():
    runs = [
        flat(recipe=recipe, state__bn=policy, **deal)
        for recipe in ("batchnorm", "zc-swish")
        for policy in ("average", "drop")
        for deal in DEALS
    ]
    pairs = {(str(series), str(condition)) for series, condition in group(runs)}
    names = {"BatchNorm", "BatchNorm, statistics drop", "ZC-Swish"}
    assert pairs == {(name, where) for name in names for where in ("iid", "Dirichlet α = 0.3")}


def test_fixed_statistics_make_a_contender_of_their_own():
    runs = [flat(recipe="none")]
    runs += [flat(recipe="batchnorm", state__fixed_from=number) for number in (0, 5)]
    names = [str(series) for series, _ in group(runs)]
    assert names == ["ReLU", "BatchNorm", "BatchNorm, fixed from round 5"]


def test_a_width_of_its_own_stays_a_condition():
    pairs = group([flat(recipe="none", network__width=8), flat(recipe="swish", network__width=16)])
    assert [str(condition) for _, condition in pairs] == ["width 8", "width 16"]


def test_a_deal_of_its_own_stays_a_condition():
    """Or networks would be compared that met different clients."""
    pairs = group([flat(recipe="none", partition__kind="iid"), flat(recipe="zc-swish")])
    assert [str(condition) for _, condition in pairs] == ["iid", "Dirichlet α = 0.3"]


DEALS = ({"partition__kind": "iid"}, {"partition__alpha": 0.3})


def test_equal_memory_goes_without_saying():
    tiers = {"fleet.memory": "1:0.5,4:0.5"}
    equal, tiered = flat(), Experiment().replace(tiers).to_flat()
    assert "client.batch-size" not in relevant(tiered)
    names = [str(series) for series, _ in group([equal, tiered])]
    assert names == ["equal memory", "memory tiers 1:0.5,4:0.5"]
    cells = [flat(recipe=recipe, **deal) for recipe in ("none", "swish") for deal in DEALS]
    tiered = [Experiment.from_flat({**cell, **tiers}).to_flat() for cell in cells]
    names = {str(condition) for _, condition in group([*cells, *tiered])}
    assert {"iid", "Dirichlet α = 0.3, memory tiers 1:0.5,4:0.5"} < names


def test_a_data_set_that_is_known_by_its_hash_is_named_by_the_first_digits():
    name = f"kept:{'0123456789abcdef' * 4}"
    assert data_set(name) == "kept:01234567"
    assert data_set("cifar10") == "cifar10"
    assert settings({"data.name": name})["data.name"].text == "kept:01234567"


def test_faults_and_rules_of_others_in_words():
    bad = {"faults.kind": "sign", "faults.share": 0.3}
    median = {"strategy.kind": "flwr.serverapp.strategy:FedMedian"}
    few = {**bad, "faults.share": 0.1}
    flats = [Experiment().replace(one).to_flat() for one in ({}, bad, {**few, **median})]
    named = [(str(series), str(condition)) for series, condition in group(flats)]
    assert named == [
        ("FedAvg", "no faults"),
        ("FedAvg", "fault sign, 0.3 of clients"),
        ("FedMedian", "fault sign, 0.1 of clients"),
    ]


def test_what_a_study_compares_are_its_contenders_and_nothing_is_told_twice():
    changes = [
        {"recipe": "groupnorm", "strategy.kind": "fedavg"},
        {"recipe": "groupnorm", "strategy.kind": "fedadam", "strategy.options.eta": 0.1},
        {"recipe": "nf", "strategy.kind": "fedavg"},
    ]
    found = group([Experiment().replace(one).to_flat() for one in changes], changes[0])
    assert len({series for series, _ in found}) == 3
    assert {str(condition) for _, condition in found} == {"Dirichlet α = 0.3"}
    methods = group([Experiment().replace(one).to_flat() for one in changes], ["strategy.kind"])
    assert len({series for series, _ in methods}) == 2
    assert {str(condition) for _, condition in methods} == {"GroupNorm", "NF"}
