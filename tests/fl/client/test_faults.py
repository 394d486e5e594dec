"""What a faulty client sends has a closed form, and lanes have it as training alone does."""

import numpy as np
import pytest

from fl.config.parsing import ConfigError

ALL = {"faults.share": 1.0}
ALONE = {"sampling.clients": 1}
LANES = {"engine": "vectorized", "vectorized.lanes": 3, "vectorized.level": "eager"}


def statistics(model: dict) -> set[str]:
    return {name for name in model if "running_" in name}


def test_turned_and_scaled_updates_are_what_their_formulas_say(ended):
    honest = ended().model
    turned = ended({**ALL, "faults.kind": "sign"}).model
    doubled = ended({**ALL, "faults.kind": "huge", "faults.factor": 2.0}).model
    for name in honest.keys() - statistics(honest):
        update = doubled[name] - honest[name]  # start + 2 u less start + u
        assert np.abs(update).max() > 1e-4
        np.testing.assert_allclose(honest[name] - turned[name], 2 * update, atol=1e-6)
    for name in statistics(honest):
        np.testing.assert_array_equal(turned[name], honest[name])


def test_a_liar_about_statistics_is_honest_about_weights(ended):
    honest = ended(ALONE).model
    asked = {**ALL, **ALONE, "faults.kind": "statistics", "faults.factor": 3.0}
    told = ended(asked).model
    for name in honest.keys() - statistics(honest):
        np.testing.assert_array_equal(told[name], honest[name])
    for var in (name for name in statistics(honest) if name.endswith("_var")):
        mean = var.replace("_var", "_mean")
        np.testing.assert_allclose(told[var], 3 * honest[var], rtol=1e-6)
        moved = told[mean] - honest[mean]
        np.testing.assert_allclose(moved, 3 * np.sqrt(honest[var]), rtol=1e-5)


def test_turned_labels_are_those_of_a_data_set_whose_labels_are_turned(ended):
    turned = ended({**ALL, "faults.kind": "labels"}).model
    other = ended({"data.options.turned": True}).model
    for name in turned:
        np.testing.assert_array_equal(turned[name], other[name])
    assert any((turned[name] != ended().model[name]).any() for name in turned)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sign", "labels", "huge", "statistics"])
def test_lanes_have_the_faults_that_training_one_by_one_has(ended, kind):
    asked = {"faults.kind": kind, "faults.share": 0.5}
    alone, lanes = ended(asked), ended({**asked, **LANES})
    assert lanes.model.keys() == alone.model.keys()
    for name in alone.model:
        np.testing.assert_allclose(lanes.model[name], alone.model[name], rtol=1e-4, atol=1e-5)
    assert alone.lines[1]["faulty"] == lanes.lines[1]["faulty"] != []


def test_only_the_rounds_that_are_asked_for_have_faults(ended):
    found = ended({**ALL, "faults.kind": "sign", "faults.rounds": "2-"})
    assert found.result["model_sha256"] == ended().result["model_sha256"]
    assert not [line for line in found.lines if "faulty" in line]
    assert not [line for line in found.accounts if "fault" in line]


@pytest.mark.parametrize("odd", [{"recipe": "groupnorm"}, {"state.bn": "local"}])
def test_who_sends_no_statistics_can_t_lie_about_them(ended, odd):
    with pytest.raises(ConfigError, match="take a recipe with BatchNorm") as error:
        ended({**ALL, "faults.kind": "statistics", **odd})
    assert "\n" not in str(error.value)
