"""The pictures of a decision show what the runs hold, on axes rather than rows."""

import pytest

from experiments.report.results import read
from experiments.report.sections.decision import brief, factors, forest, heat


def test_the_heat_map_has_skew_across_and_other_factors_as_panels(study):
    results = read(study)
    assert factors.across(results) == "partition"
    figure = heat.figure(results)
    shown = [text.get_text() for panel in figure.axes for text in panel.texts]
    assert len(shown) == len(results.cells) == 9
    means = sorted(f"{100 * cell.outcome.mean:.1f}" for cell in results.cells.values())
    assert sorted(text.split()[0] for text in shown) == means


def test_the_forest_has_a_panel_a_condition_and_no_reference(study):
    results = read(study)
    figure = forest.figure(results)
    assert len(figure.axes) == len(results.conditions)
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == ["ZC-Swish", "SaluNet"]


def test_one_contender_has_neither(tmp_path, write_run):
    write_run(tmp_path / "a", [0.1, 0.5])
    results = read(tmp_path)
    assert (heat.figure(results), forest.figure(results)) == (None, None)
    assert brief.lines(results) == []


@pytest.mark.parametrize("conditions", [3, 14])
def test_the_answer_has_nine_lines_at_most_and_claims_what_verdicts_say(
    tmp_path, write_run, conditions
):
    for size in range(1, conditions + 1):
        for seed in range(1, 9):
            for recipe, gain in (("batchnorm", 0), ("zc-swish", 0.02 + 0.001 * size)):
                late = (
                    0.5 + 0.003 * (seed % 3) * (recipe == "none") + gain + 0.001 * (seed % 2) * gain
                )
                knobs = {"recipe": recipe, "seed": seed, "client.batch-size": size}
                write_run(tmp_path / f"{recipe}-{size}-{seed}", [0.1, late, late], knobs)
    told = brief.lines(read(tmp_path))
    assert len(told) == 1  # the same verdict everywhere
    assert told[0].startswith("**Everywhere:** better than BatchNorm: ZC-Swish (+2.1 to ")
