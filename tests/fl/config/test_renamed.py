import hashlib
import json

import pytest

from fl.config import Experiment, renamed
from fl.config.experiment import ADDED_LATER
from fl.config.parsing import ConfigError
from fl.config.renamed import first_spelling, modernize, modernize_header

OLD = {"engine": "cohort", "cohort.lanes": 5, "cohort.level": "native"}
NEW = {"engine": "vectorized", "vectorized.lanes": 5, "vectorized.level": "native"}


@pytest.fixture(autouse=True)
def _nothing_told_yet(monkeypatch):
    monkeypatch.setattr(renamed, "_told", set())


def test_every_new_spelling_is_that_of_a_knob():
    known = Experiment().to_flat()
    assert set(renamed.KEYS.values()) <= set(known)
    assert not set(renamed.KEYS) & set(known)
    for (key, _), value in renamed.VALUES.items():
        assert Experiment.from_flat({key: value}).to_flat()[key] == value


def test_old_and_new_spellings_are_the_same_experiment(caplog):
    experiment = Experiment.from_flat(OLD)
    assert experiment == Experiment.from_flat(NEW)
    assert experiment == Experiment().replace(OLD) == Experiment().replace(NEW).replace(OLD)
    assert experiment.to_flat() == {**Experiment().to_flat(), **NEW}
    assert Experiment(engine="cohort") == Experiment(engine="vectorized")  # pyrefly: ignore
    assert first_spelling(NEW) == OLD
    assert modernize({**OLD, "seed": 2}) == {**NEW, "seed": 2}


def test_the_new_spelling_is_told_once_in_one_line(caplog):
    Experiment.from_flat(OLD)
    Experiment.from_flat(OLD)
    assert caplog.messages == [
        "fednf: engine=cohort is now engine=vectorized, cohort.lanes is now vectorized.lanes, "
        "cohort.level is now vectorized.level"
    ]


def test_the_new_spelling_needs_no_word(caplog):
    Experiment.from_flat(NEW)
    assert caplog.messages == []


def test_both_spellings_of_a_knob_are_refused_in_one_line():
    with pytest.raises(ConfigError) as refused:
        Experiment.from_flat({"cohort.lanes": 2, "vectorized.lanes": 3})
    assert str(refused.value) == (
        "cohort.lanes is now vectorized.lanes, and both are given; leave cohort.lanes out"
    )


def test_an_old_header_is_read_without_a_word(caplog):
    told = {**OLD, "workers": 2, "why": "5 lanes, native"}
    header = {"identity": "a", "knobs": {**OLD, "seed": 1}, "engine": told}
    assert modernize_header(header) == {
        "identity": "a",
        "knobs": {**NEW, "seed": 1},
        "engine": {**NEW, "workers": 2, "why": "5 lanes, native"},
    }
    assert modernize_header({"knobs": {}}) == {"knobs": {}}
    assert caplog.messages == []


def test_an_experiment_keeps_its_identity_when_a_knob_is_renamed():
    experiment = Experiment.from_flat(NEW)
    was = {**experiment.to_flat(), **OLD}
    for key in list(was):
        if key.startswith(("vectorized.", "signals.", "devices.", "run.")) or key in ADDED_LATER:
            del was[key]
    hashed = hashlib.sha256(json.dumps(was, sort_keys=True).encode()).hexdigest()
    assert experiment.identity == hashed
