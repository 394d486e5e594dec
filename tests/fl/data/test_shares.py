"""Every kind of partition by its name, and which knobs it minds."""

import typing

import pytest
import torch

from fl.config import Experiment, Partition, relevant
from fl.config.parsing import ConfigError
from fl.data import Dataset, Split, deal, shares

KINDS = typing.get_args(typing.get_args(Partition.model_fields["kind"].annotation)[0])
OTHER = {
    "partition.alpha": 2.0,
    "partition.min-size": 60,
    "partition.quantity-alpha": 3.0,
    "partition.shards": 3,
    "partition.labels": 3,
}
"""Values that change the deal of whoever minds the knob."""


@pytest.fixture(autouse=True)
def _data(monkeypatch):
    """1,200 examples of six classes in four domains."""
    places = torch.arange(1200)
    split = Split(torch.zeros(1200, 1, 1, 1, dtype=torch.uint8), places % 6, places * 7 % 31 % 4)
    whose = Dataset("whose", split, split, tuple("abcdef"), "none", "here", tuple("wxyz"))
    nobodys = Split(split.images, split.labels)
    both = {
        "whose": whose,
        "nobodys": Dataset("nobodys", nobodys, nobodys, whose.classes, "none", "here"),
    }
    monkeypatch.setattr(shares, "_load", lambda source: both[source.name])
    shares._deal.cache_clear()
    yield
    shares._deal.cache_clear()


def dealt(kind, flat=None):
    flat = {"partition.kind": kind, "partition.clients": 12, "data.name": "whose", **(flat or {})}
    return [part.tolist() for part in deal(Experiment.from_flat(flat))]


@pytest.mark.parametrize("kind", KINDS)
def test_every_example_belongs_to_one_client(kind):
    parts = dealt(kind)
    assert len(parts) == 12
    assert sorted(place for part in parts for place in part) == list(range(1200))


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_minds_exactly_the_knobs_that_bear_on_its_results(kind):
    minded = relevant(Experiment().replace({"partition.kind": kind}).to_flat())
    for key, value in OTHER.items():
        assert (dealt(kind, {key: value}) != dealt(kind)) == (key in minded), key
    assert ("partition.noise" in minded) == (kind == "feature-noise")
    assert {"partition.kind", "partition.clients", "partition.held-out"} <= minded.keys()


def test_kinds_differ():
    deals = {str(dealt(kind)) for kind in KINDS}
    assert len(deals) == len(KINDS) - 1  # feature-noise is dealt as iid


@pytest.mark.parametrize(
    ("data", "flat", "message"),
    [
        ("nobodys", {"partition.kind": "natural"}, "does not say whose each image is"),
        ("whose", {"partition.kind": "natural", "partition.clients": 10}, "4 domains"),
        ("whose", {"partition.kind": "shards", "partition.shards": 200}, "partition.shards"),
        ("whose", {"partition.kind": "label-count", "partition.labels": 7}, "partition.labels"),
        ("whose", {"partition.kind": "quantity", "partition.min-size": 200}, "partition.min-size"),
    ],
)
def test_an_impossible_deal_is_one_line(data, flat, message):
    with pytest.raises(ConfigError, match=message) as error:
        deal(Experiment.from_flat({"data.name": data, **flat}))
    assert "\n" not in str(error.value)
