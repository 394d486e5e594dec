"""Figures show what was measured, in the same bytes every time."""

import xml.etree.ElementTree as ET

import numpy as np
import pytest
import torch
from matplotlib.collections import PatchCollection

from experiments.report import contact_sheet
from experiments.report.drawing import figures
from experiments.report.results import read
from experiments.report.sections import accuracy
from fl.data import Dataset, Split

CLASSES = ("a", "b", "c")


def test_curves_have_a_panel_a_condition_and_a_line_a_recipe(study):
    results = read(study)
    figure = accuracy.curves(results)
    assert [panel.get_title(loc="left") for panel in figure.axes] == [
        str(condition) for condition in results.conditions
    ]
    means = figure.axes[0].lines[0].get_ydata()
    assert list(means) == pytest.approx([0.1, 0.57, 0.55])
    colors = {str(s): figures.style(s, results.series)[0] for s in results.series}
    assert len(set(colors.values())) == 3


def test_no_band_is_cut_and_no_curve_runs_under_the_word_guessing(tmp_path, write_run):
    """The first panel ends at .4 and the second at .9; their upright axis is one."""
    for name, knobs, end in (
        ("even", {"partition.kind": "iid"}, 0.3),
        ("skewed", {"partition.kind": "dirichlet"}, 0.8),
        ("other", {"partition.kind": "iid", "recipe": "groupnorm"}, 0.3),
    ):
        for seed in (1, 2):
            accuracies = [0.1, end + 0.05 * seed]
            write_run(tmp_path / f"{name}-{seed}", accuracies, {**knobs, "seed": seed})
    figure = accuracy.curves(read(tmp_path))
    figure.canvas.draw()
    assert [len(panel.collections) for panel in figure.axes] == [2, 1]
    for panel in figure.axes:
        low, high = panel.get_ylim()
        assert low == 0
        assert all(band.get_datalim(panel.transData).y1 < high for band in panel.collections)
        (word,) = panel.texts
        box = word.get_window_extent()
        assert box.x0 >= panel.get_window_extent().x1  # beside the panel
        assert box.x1 <= figure.bbox.x1
        assert word.get_text() == "guessing\n10%"


def test_a_recipe_keeps_its_colour(study, tmp_path, write_run):
    write_run(tmp_path / "alone" / "a", [0.1, 0.5], {"recipe": "zc-swish"})
    alone, among = read(tmp_path / "alone"), read(study)
    zc_swish = alone.series[0]
    assert figures.style(zc_swish, alone.series) == figures.style(zc_swish, among.series)


def test_dots_show_every_seed(study):
    figure = accuracy.dots(read(study))
    shown = [tuple(line.get_xdata()) for line in figure.axes[0].lines if len(line.get_xdata()) == 2]
    assert any(ends == pytest.approx((0.51, 0.61)) for ends in shown)
    assert any(ends == pytest.approx((0.71, 0.81)) for ends in shown)


def test_unfinished_runs_alone_are_drawn(tmp_path, write_run):
    write_run(tmp_path / "a", [0.1, 0.4], finished=False)
    figure = accuracy.curves(read(tmp_path))
    assert list(figure.axes[0].lines[0].get_ydata()) == [0.1, 0.4]


def test_squares_of_a_deal_have_areas_in_proportion_to_counts():
    counts = np.array([[4, 0, 16], [1, 1, 0]])
    squares, bars = figures.deal(counts, CLASSES, "title").axes
    (collection,) = (c for c in squares.collections if isinstance(c, PatchCollection))
    corners = [path.get_extents() for path in collection.get_paths()]
    areas = np.array([box.width * box.height for box in corners])
    assert areas / areas.min() == pytest.approx([4, 16, 1, 1])
    assert [bar.get_width() for bar in bars.patches] == [20, 2]


def test_a_deal_to_very_many_clients_shows_the_first():
    figure = figures.deal(np.ones((500, 3), dtype=int), CLASSES, "title")
    assert len(figure.axes[1].patches) == figures.MOST_CLIENTS
    assert figure.axes[0].get_ylabel() == "first 40 of 500 clients"


def test_an_empty_client_has_no_square():
    figure = figures.deal(np.array([[0, 0, 0], [0, 3, 0]]), CLASSES, "title")
    assert [bar.get_width() for bar in figure.axes[1].patches] == [0, 3]


@pytest.mark.parametrize(
    "write", [figures.svg, figures.png, pytest.param(figures.pdf, marks=pytest.mark.slow)]
)
def test_the_same_figure_has_the_same_bytes(study, write):
    results = read(study)
    assert write(accuracy.dots(results)) == write(accuracy.dots(results))


def test_svg_says_no_date_and_parses(study):
    svg = figures.svg(accuracy.curves(read(study)))
    assert "dc:date" not in svg
    root = ET.fromstring(svg)
    assert root.tag.endswith("svg")
    words = {"".join(one.itertext()).strip() for one in root.iter() if one.tag.endswith("}text")}
    assert {"ZC-Swish", "iid", "Dirichlet α = 0.1", "round"} <= words, "text is text"


@pytest.mark.slow
def test_a_pdf_is_asked_for_and_goes_with_the_next_report(study):
    folder = study / "figures"
    figure = accuracy.dots(read(study))
    figures.save(figure, folder / "a", as_pdf=True)
    written = (folder / "a.pdf").read_bytes()
    assert written.startswith(b"%PDF")
    assert b"CreationDate" not in written
    assert b"/FontFile2" in written, "a font whose letters are text, and no outlines"
    assert b"/Type3" not in written
    figures.save(figure, folder / "a")
    assert sorted(path.name for path in folder.iterdir()) == ["a.png", "a.svg"]


@pytest.mark.parametrize("space", [(30,), (9, 9), (5, 6, 7)])
@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_a_contact_sheet_has_a_row_a_class(space, channels, dtype):
    images = torch.randint(256, (40, channels, *space)).to(dtype)
    split, names = Split(images, torch.arange(40) % 3), ("a", "b", "c")
    figure = contact_sheet(
        Dataset("things", split, split, names, "", ""), split.labels.numpy(), names
    )
    drawn = [axes for axes in figure.axes if axes.lines or axes.images]
    assert len(drawn) == 30
    assert [text.get_text() for axes in figure.axes for text in axes.texts] == ["a", "b", "c"]
