"""A cell has collapsed if it can't be told from guessing; the page says so and shows gradients."""

from itertools import product

import pytest

from experiments.report import write
from experiments.report.results import read
from experiments.report.sections import collapse
from experiments.report.sections.decision import dose
from fl.config.parsing import ConfigError

IID = {"partition.kind": "iid"}


@pytest.mark.parametrize(
    ("late", "collapsed"),
    [(0.1, True), (0.118, True), (0.125, False), (0.08, True), (0.5, False)],
)
def test_a_cell_has_collapsed_if_its_interval_holds_guessing(tmp_path, write_run, late, collapsed):
    """The shipped set has 1,000 test images: 11.8 % has the exact interval 9.9 to 14.0 %."""
    write_run(tmp_path / "a", [0.1, late, late])
    (fall,) = collapse.falls(read(tmp_path))
    assert fall.before.values == (2.0,)
    assert (fall.collapsed, fall.lost) == (collapsed, int(collapsed))


def test_it_is_the_mean_over_seeds_that_collapses(tmp_path, write_run):
    for seed, late in enumerate((0.1, 0.3), start=1):
        write_run(tmp_path / str(seed), [0.1, late], {"seed": seed})
    (fall,) = collapse.falls(read(tmp_path))
    assert (fall.collapsed, fall.lost) == (False, 1)


def test_lost_seeds_are_compared_with_the_reference_s_in_pairs(tmp_path, write_run):
    """All five seeds of one are lost and none of the other: 2 / 2⁵."""
    for recipe, late in (("batchnorm", 0.5), ("zc-swish", 0.1)):
        for seed in range(1, 6):
            knobs = {"recipe": recipe, "seed": seed, **IID}
            write_run(tmp_path / f"{recipe}-{seed}", [0.1, late, late], knobs)
    found = {fall.cell.runs[0].knobs["recipe"]: fall for fall in collapse.falls(read(tmp_path))}
    assert (found["zc-swish"].lost, found["zc-swish"].p) == (5, pytest.approx(2 / 2**5))
    assert (found["batchnorm"].lost, found["batchnorm"].p) == (0, None)
    assert '<td class="number">0.062</td>' in write(tmp_path).read_text(encoding="utf-8")


def test_where_the_images_are_not_known_two_points_decide(tmp_path, write_run):
    write_run(tmp_path / "a", [0.1, 0.115], {"data.name": "cifar10"})
    (fall,) = collapse.falls(read(tmp_path))
    assert fall.collapsed
    assert "collapsed if it is within 2 points of guessing" in write(tmp_path).read_text(
        encoding="utf-8"
    ).replace("<dfn>", "").replace("</dfn>", "")


@pytest.fixture
def half(tmp_path, write_run):
    """Write a study in which BatchNorm collapses, with its gradients, and ZC-Swish learns."""
    for recipe, late, norm in (("batchnorm", 0.1, 1e-4), ("zc-swish", 0.6, 2.0)):
        knobs = {"recipe": recipe, **IID}
        write_run(tmp_path / recipe, [0.1, late, late], knobs, gradient_norm=norm)
    return tmp_path


def test_the_page_names_collapsed_cells_and_draws_their_gradients(half):
    html = write(half).read_text(encoding="utf-8")
    assert "1 of 2 cells has." in html
    assert "0.0001 → 0.0002" in html
    figure = collapse.figure(read(half))
    (panel,) = figure.axes
    assert panel.get_title(loc="left") == "iid"
    drawn = {tuple(line.get_ydata()) for line in panel.lines}
    assert drawn == {(1e-4, 2e-4), (2.0, 4.0)}
    assert {path.name for path in (half / "figures").glob("gradients.*")} == {
        "gradients.png",
        "gradients.svg",
    }


@pytest.mark.slow
def test_without_a_collapse_the_page_says_so(half, write_run):
    write(half)
    write_run(half / "more", [0.1, 0.5, 0.6], {"recipe": "batchnorm", **IID, "seed": 2})
    html = write(half).read_text(encoding="utf-8")
    assert "None has." in html
    assert not list((half / "figures").glob("gradients.*"))


def test_gradients_that_are_zero_are_shown(tmp_path, write_run):
    write_run(tmp_path / "a", [0.1, 0.1], gradient_norm=0.0)
    assert "0 → 0" in write(tmp_path).read_text(encoding="utf-8")
    assert collapse.figure(read(tmp_path)) is not None


def test_a_result_without_rounds_is_named(tmp_path, write_run):
    write_run(tmp_path / "a", [0.1, 0.1])
    (tmp_path / "a" / "rounds.jsonl").write_text("")
    with pytest.raises(ConfigError, match="has a result and no rounds"):
        read(tmp_path)


def test_runs_without_gradient_norms_have_no_figure(tmp_path, write_run):
    write_run(tmp_path / "a", [0.1, 0.1])
    assert collapse.figure(read(tmp_path)) is None


@pytest.mark.slow
def test_accuracy_is_drawn_along_the_skew_from_three_partitions_on(tmp_path, write_run):
    deals = [IID, {"partition.alpha": 1.0}, {"partition.alpha": 0.05}]
    for place, deal in enumerate(deals):
        assert place == 0 or dose.figure(read(tmp_path)) is None
        for recipe, seed in product(("none", "zc-swish"), (1, 2)):
            knobs = {"recipe": recipe, "seed": seed, **deal}
            final = 0.8 - 0.2 * place + 0.01 * seed
            write_run(tmp_path / f"{recipe}{place}{seed}", [0.1, final], knobs)
    figure = dose.figure(read(tmp_path))
    (panel,) = figure.axes
    assert [tick.get_text() for tick in panel.get_xticklabels()] == ["iid", "α = 1", "α = 0.05"]
    means = [line.get_ydata() for line in panel.lines if len(line.get_ydata()) == 3]
    assert [list(line) for line in means] == [pytest.approx([0.815, 0.615, 0.415])] * 2
    assert "What these seeds show" in write(tmp_path).read_text(encoding="utf-8")


def test_a_condition_without_a_finished_run_leads_nothing(tmp_path, write_run):
    for recipe, final in (("none", 0.4), ("zc-swish", 0.5)):
        write_run(tmp_path / recipe, [0.1, final], {"recipe": recipe, **IID})
    write_run(tmp_path / "b", [0.1, 0.9], {"partition.alpha": 0.1}, finished=False)
    html = write(tmp_path).read_text(encoding="utf-8")
    assert "ZC-Swish reaches 50.0%, 10.0 points above ReLU" in html
