"""What other test images could change, in the report."""

import numpy as np
import pytest

from experiments.report.results import read
from experiments.report.sections.decision import images
from fl.reproducibility.files import packed
from fl.server.contents import RIGHT

IMAGES = 400


@pytest.fixture
def results(tmp_path, write_run):
    """Two contenders at six seeds; ReLU is right on a tenth more of the images."""
    for recipe in ("batchnorm", "none"):
        for seed in range(6):
            write_run(tmp_path / f"{recipe}-{seed}", [0.1, 0.5], {"recipe": recipe, "seed": seed})
    found = read(tmp_path)
    for run in found.runs:
        rng = np.random.default_rng(run.seed)
        base, more = rng.random(IMAGES) < 0.5, rng.random(IMAGES) < 0.2
        right = base | more if run.knobs["recipe"] == "none" else base
        run.rounds[-1].update({RIGHT: packed(right), "evaluated": IMAGES})
    return found


def test_an_interval_with_images_drawn_is_the_wider_one(results):
    ((_, row),) = images.drawn(results, results.conditions[0])
    assert row.mean == pytest.approx(0.1, abs=0.03)
    assert row.images[1] - row.images[0] > row.blocks[1] - row.blocks[0]
    assert row.images[0] < row.mean < row.images[1]
    text = str(images.section(results))
    assert "other images, too" in text
    assert "BatchNorm" in text


def test_runs_that_do_not_say_which_images_were_right_have_no_section(results):
    for run in results.runs:
        run.rounds[-1].pop(RIGHT)
    assert images.section(results) is None
