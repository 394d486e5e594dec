"""Statistics equal those computed by hand; runs are grouped and named as a reader expects."""

import subprocess
import sys

import pytest

from experiments.report.labels import group
from experiments.report.measure import Spread
from experiments.report.results import read
from fl.config import Experiment
from fl.config.parsing import ConfigError
from fl.nn import relevant


def by_name(results):
    return {(str(series), str(where)): cell for (series, where), cell in results.cells.items()}


def test_spread_is_that_of_a_pocket_calculator():
    spread = Spread((0.2, 0.4, 0.9))
    assert (spread.n, spread.low, spread.high) == (3, 0.2, 0.9)
    assert spread.mean == pytest.approx(0.5)
    assert spread.sd == pytest.approx((0.26 / 2) ** 0.5)
    assert Spread((0.3,)).sd is None


def test_cells_of_a_study(study):
    results = read(study)
    assert [str(series) for series in results.series] == ["BatchNorm", "ZC-Swish", "SaluNet"]
    assert [str(where) for where in results.conditions] == [
        "iid",
        "Dirichlet α = 0.1",
        "Dirichlet α = 0.1, FedProx μ = 0.1",
    ]
    assert (results.name, results.question) == ("trial", "Who holds up?")
    cell = by_name(results)["BatchNorm", "iid"]
    assert cell.final.values == (0.50, 0.60)
    assert cell.final.mean == pytest.approx(0.55)
    assert cell.final.sd == pytest.approx(0.005**0.5)
    assert cell.best.mean == pytest.approx(0.57)
    assert cell.best_rounds == (1, 1)
    assert cell.total("train_seconds") == 6.0
    assert cell.images_per_second == 200.0


def test_changes_differ_in_one_aspect(study):
    changes = [(str(before), str(after)) for before, after in read(study).changes()]
    skewed = "Dirichlet α = 0.1"
    assert changes == [("iid", skewed), (skewed, f"{skewed}, FedProx μ = 0.1")]


def test_gains_are_paired_by_seed(study):
    cells = by_name(read(study))
    gain = cells["SaluNet", "iid"].gain_over(cells["BatchNorm", "iid"])
    assert gain.values == pytest.approx((0.02, -0.02))


def test_a_run_s_value_is_its_mean_over_the_last_rounds(study, tmp_path, write_run):
    cell = by_name(read(study))["BatchNorm", "iid"]
    assert cell.late.values == pytest.approx((0.51, 0.61))  # of two rounds both
    write_run(tmp_path / "long", [0.1, *[0.2] * 37, 0.5, 0.5, 0.6, 0.6])  # 41 rounds, so 5
    (run,) = read(tmp_path / "long").runs
    assert run.late == pytest.approx((0.2 + 0.5 + 0.5 + 0.6 + 0.6) / 5)


def test_runs_are_paired_by_the_seeds_of_all_that_has_its_own(tmp_path, write_run):
    for deal in (1, 2):
        for init in (1, 2):
            for recipe, gain in (("none", 0.0), ("swish", 0.01 * deal + 0.1 * init)):
                knobs = {"recipe": recipe, "seed.deal": deal, "seed.init": init}
                write_run(tmp_path / f"{recipe}{deal}{init}", [0.1, 0.3 + gain], knobs)
    results = read(tmp_path)
    (condition,) = results.conditions
    none, swish = (results.cells[series, condition] for series in results.series)
    assert (str(none.series), none.late.n) == ("ReLU", 4)
    gains = swish.gain_over(none).values
    assert gains == pytest.approx((0.11, 0.21, 0.12, 0.22))


def test_rivals_are_compared_on_the_seeds_that_all_have(tmp_path, write_run):
    for seed, final in ((1, 0.5), (2, 0.1)):
        write_run(tmp_path / f"a{seed}", [0.1, final], {"recipe": "swish", "seed": seed})
    write_run(tmp_path / "b", [0.1, 0.4], {"recipe": "none"})
    results = read(tmp_path)
    first, second = results.rivals(results.conditions[0])
    assert (str(first.series), first.final.values) == ("Swish", (0.5,))
    assert (str(second.series), second.final.values) == ("ReLU", (0.4,))


def test_unfinished_runs_enter_no_statistic(tmp_path, write_run):
    write_run(tmp_path / "a", [0.1, 0.5])
    write_run(tmp_path / "b", [0.1, 0.9, 0.9], {"seed": 2, "rounds": 9}, finished=False)
    results = read(tmp_path)
    assert [run.seed for run in results.unfinished] == [2]
    assert results.unfinished[0].rounds_done == 2
    assert [cell.final.values for cell in results.cells.values()] == [(0.5,)]


def test_a_repeated_run_counts_once(tmp_path, write_run):
    # alpha does not matter to iid, so these two are the same experiment
    for name, alpha in (("a", 0.1), ("b", 0.3)):
        knobs = {"partition.kind": "iid", "partition.alpha": alpha}
        write_run(tmp_path / name, [0.1, 0.5], knobs)
    results = read(tmp_path)
    assert [run.name for run in results.runs] == ["a"]
    assert [run.name for run in results.repeats] == ["b"]


def test_a_folder_may_be_one_run(tmp_path, write_run):
    write_run(tmp_path / "alone", [0.1, 0.5])
    results = read(tmp_path / "alone")
    assert [run.name for run in results.runs] == ["alone"]
    assert str(results.series[0]) == "ZC-Swish"
    assert str(results.conditions[0]) == "Dirichlet α = 0.3"


@pytest.mark.parametrize(
    ("changes", "series", "conditions"),
    [
        ([{"client.batch-size": 1}, {"client.batch-size": 4}], ["batch size 1", "batch size 4"], 1),
        ([{"partition.kind": "iid"}, {"partition.alpha": 10.0}], ["iid", "Dirichlet α = 10"], 1),
        (
            [{"recipe": "none", "rounds": 5}, {"recipe": "swish", "rounds": 10}],
            ["ReLU", "Swish"],
            2,
        ),
        (
            [{"strategy.kind": "fedprox", "strategy.mu": 0.01}, {}],
            ["FedAvg", "FedProx μ = 0.01"],
            1,
        ),
    ],
)
def test_series_and_conditions(changes, series, conditions):
    groups = group([Experiment().replace(change).to_flat() for change in changes])
    assert [str(s) for s in sorted({s for s, _ in groups})] == series
    assert len({condition for _, condition in groups}) == conditions


def test_numbers_sort_as_numbers():
    groups = group(
        [
            Experiment().replace({"recipe": recipe, "partition.alpha": alpha}).to_flat()
            for recipe in ("none", "swish")
            for alpha in (0.1, 10.0, 1.0)
        ]
    )
    conditions = [str(condition) for condition in sorted({condition for _, condition in groups})]
    assert conditions == ["Dirichlet α = 10", "Dirichlet α = 1", "Dirichlet α = 0.1"]


def test_knobs_that_are_switched_off_do_not_count():
    knobs = relevant(Experiment().replace({"partition.kind": "iid"}).to_flat())
    assert not {"partition.alpha", "partition.min-size", "strategy.mu", "run.dir"} & knobs.keys()


def test_a_folder_without_runs_is_refused_in_one_line(tmp_path):
    with pytest.raises(ConfigError, match="holds no run") as error:
        read(tmp_path)
    assert "\n" not in str(error.value)


def test_a_run_that_was_scored_on_devices_only_is_refused_in_one_line(tmp_path, write_run):
    write_run(tmp_path / "a", [None, None], finished=False)
    with pytest.raises(ConfigError, match="no test accuracies to report"):
        read(tmp_path)


@pytest.mark.parametrize("damage", ["{", "{}"])
def test_a_damaged_run_is_refused_in_one_line(tmp_path, write_run, damage):
    write_run(tmp_path / "a", [0.1, 0.5])
    (tmp_path / "a" / "experiment.json").write_text(damage)
    with pytest.raises(ConfigError, match=r"experiment\.json is damaged"):
        read(tmp_path)


@pytest.mark.slow
def test_the_command_line_loads_plots_only_when_it_draws():
    code = "import sys, experiments.cli.main; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
