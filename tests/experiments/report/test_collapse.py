"""A cell has collapsed if its clients' loss does not fall; the page says so and shows gradients."""

import json
from itertools import product

import pytest

from experiments.report import write
from experiments.report.results import read
from experiments.report.sections import collapse, skew
from fl.config.parsing import ConfigError

IID = {"partition.kind": "iid"}


@pytest.mark.parametrize(
    ("losses", "collapsed"),
    [
        ((1.9, 1.41), True),
        ((1.9, 1.39), False),
        ((1.3, 1.9), True),
        ((1.9, None), True),  # nobody replied in the last round; the round before counts
        ((1.2, None), False),
        ((None,), True),  # nobody ever replied
    ],
)
def test_a_cell_collapses_if_its_loss_falls_by_less_than_three_tenths(
    tmp_path, write_run, losses, collapsed
):
    write_run(tmp_path / "a", [0.1, 0.4, 0.5], losses=losses)
    (fall,) = collapse.falls(read(tmp_path))
    assert fall.before.values == (2.0,)
    assert fall.collapsed == collapsed


def test_the_fall_is_that_of_the_mean_over_seeds(tmp_path, write_run):
    for seed, loss in enumerate((1.9, 0.9), start=1):
        write_run(tmp_path / str(seed), [0.1, 0.4], {"seed": seed}, losses=(loss,))
    (fall,) = collapse.falls(read(tmp_path))
    assert fall.share == pytest.approx(0.3)
    assert not fall.collapsed


@pytest.fixture
def half(tmp_path, write_run):
    """Write a study in which BatchNorm collapses, with its gradients, and ZC-Swish learns."""
    for recipe, loss, norm in (("batchnorm", 1.9, 1e-4), ("zc-swish", 0.9, 2.0)):
        knobs = {"recipe": recipe, **IID}
        write_run(tmp_path / recipe, [0.1, 0.5, 0.6], knobs, losses=(loss,), gradient_norm=norm)
    return tmp_path


def test_the_page_names_collapsed_cells_and_draws_their_gradients(half):
    html = write(half).read_text(encoding="utf-8")
    assert "1 of 2 cells have." in html
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


def test_without_a_collapse_the_page_says_how_far_off_it_was(half, write_run):
    write(half)
    write_run(
        half / "more", [0.1, 0.5, 0.6], {"recipe": "batchnorm", **IID, "seed": 2}, losses=(0.5,)
    )
    html = write(half).read_text(encoding="utf-8")
    assert "None has; the least fall is 40% (BatchNorm, iid)" in html
    assert not list((half / "figures").glob("gradients.*"))


def test_a_cell_whose_clients_learn_apart_is_named(tmp_path, write_run):
    write_run(tmp_path / "a", [0.1, 0.5, 0.11], losses=(0.5,))
    html = write(tmp_path).read_text(encoding="utf-8")
    assert "Not collapsed, and yet the shared network is within 2 points of guessing" in html


def test_a_network_that_diverged_has_collapsed(tmp_path, write_run):
    """Its clients are refused in the last round, and the round before looked well."""
    write_run(tmp_path / "a", [0.1, 0.5, 0.5], losses=(0.5, None))
    assert not collapse.falls(read(tmp_path))[0].collapsed
    path = tmp_path / "a" / "rounds.jsonl"
    *lines, last = path.read_text().splitlines()
    line = json.loads(last)
    line["refused"] = [{"partition": 0, "reason": "w holds values that are not finite"}]
    path.write_text("\n".join([*lines, json.dumps(line)]) + "\n")
    assert collapse.falls(read(tmp_path))[0].collapsed
    assert "inf" in write(tmp_path).read_text(encoding="utf-8")


@pytest.mark.parametrize("after", [0.0, 0.5])
def test_a_loss_that_was_zero_before_training_divides_nothing(tmp_path, write_run, after):
    write_run(tmp_path / "a", [1.0, 1.0], losses=(after,))
    path = tmp_path / "a" / "rounds.jsonl"
    first, *rest = path.read_text().splitlines()
    untrained = json.dumps({**json.loads(first), "test_loss": 0.0, "train_loss": 0.0})
    path.write_text("\n".join([untrained, *rest]) + "\n")
    (fall,) = collapse.falls(read(tmp_path))
    assert fall.before.mean == 0
    assert fall.share == 0
    assert write(tmp_path).is_file()


def test_gradients_that_are_zero_are_shown(tmp_path, write_run):
    write_run(tmp_path / "a", [0.1, 0.1], losses=(2.0,), gradient_norm=0.0)
    assert "0 → 0" in write(tmp_path).read_text(encoding="utf-8")
    assert collapse.figure(read(tmp_path)) is not None


def test_a_result_without_rounds_is_named(tmp_path, write_run):
    write_run(tmp_path / "a", [0.1, 0.1])
    (tmp_path / "a" / "rounds.jsonl").write_text("")
    with pytest.raises(ConfigError, match="has a result and no rounds"):
        read(tmp_path)


def test_runs_without_gradient_norms_have_no_figure(tmp_path, write_run):
    write_run(tmp_path / "a", [0.1, 0.1], losses=(2.0,))
    assert collapse.figure(read(tmp_path)) is None


def test_accuracy_is_drawn_along_the_skew_from_three_partitions_on(tmp_path, write_run):
    deals = [IID, {"partition.alpha": 1.0}, {"partition.alpha": 0.05}]
    for place, deal in enumerate(deals):
        assert place == 0 or skew.figure(read(tmp_path)) is None
        for recipe, seed in product(("none", "zc-swish"), (1, 2)):
            knobs = {"recipe": recipe, "seed": seed, **deal}
            final = 0.8 - 0.2 * place + 0.01 * seed
            write_run(tmp_path / f"{recipe}{place}{seed}", [0.1, final], knobs)
    figure = skew.figure(read(tmp_path))
    (panel,) = figure.axes
    assert [tick.get_text() for tick in panel.get_xticklabels()] == ["iid", "α = 1", "α = 0.05"]
    means = [line.get_ydata() for line in panel.lines if len(line.get_ydata()) == 3]
    assert [list(line) for line in means] == [pytest.approx([0.815, 0.615, 0.415])] * 2
    assert "Condition by condition" in write(tmp_path).read_text(encoding="utf-8")


def test_a_condition_without_a_finished_run_leads_nothing(tmp_path, write_run):
    for recipe, final in (("none", 0.4), ("zc-swish", 0.5)):
        write_run(tmp_path / recipe, [0.1, final], {"recipe": recipe, **IID})
    write_run(tmp_path / "b", [0.1, 0.9], {"partition.alpha": 0.1}, finished=False)
    html = write(tmp_path).read_text(encoding="utf-8")
    assert "ZC-Swish reaches 50.0%, 10.0 points above ReLU" in html
