import csv
import dataclasses
import io
import json
import math

import pytest
import torch
from PIL import Image

from experiments.probe import Probe
from experiments.report import write
from experiments.report.drawing import figures, profiles
from experiments.report.results import read
from experiments.report.sections import propagation
from experiments.report.sections.signals import apart, by_depth, section
from experiments.report.sections.signals.measured import read as read_signals
from fl.config import Experiment, Network
from fl.nn import build
from fl.nn.criticality import Chain
from fl.nn.probes import measure

DEEP = 4


def layer(kind, place, acv, **figure):
    given = {"acsm": acv, "gradient_acsm": 0.0, "gradient_acv": acv} | figure
    named = {"name": f"layers.{place}.{kind}", "kind": kind, "acv": acv}
    return {**named, "branch_acv": None, "dead": None} | given


def plain(*variances):
    return [
        part
        for place, acv in enumerate(variances)
        for part in (layer("weights", place, 7.0), layer("activation", place, acv, dead=0.25))
    ]


def lines(rounds, clients=3, variance=0.04):
    """Lines of signals: client k has k more than the shared network, on its own images 100."""
    found = []
    for number in rounds:
        about = {"round": number, "images": 8}
        for partition in (None, *range(clients)) if number else (None,):
            layers = plain(*[1.0 + number + (partition or 0)] * DEEP)
            told = {**about, "partition": partition, "batch": "common", "layers": layers}
            found.append(told)
        if number:
            gap = {"layers.0.norm": {"mean": 0.1 * number, "variance": -0.5}}
            own = {**about, "images": 3, "batch": "own", "layers": plain(*[100.0] * DEEP)}
            found += [{**own, "partition": k, "statistics": dict(gap)} for k in range(clients)]
            scalars = {"a": variance, "b": [0.0, variance]}
            whole = {"update_cosine": 1 / number, "cancelled": 1 - 1 / number}
            layers = {f"layers.{i}.weights": {**whole, "cancelled": i / 10} for i in range(DEEP)}
            apart = {"scalar_variance": scalars, "clients": clients, "layers": layers, **whole}
            found.append({"round": number, "divergence": apart})
    return found


def of_an_earlier_version(found):
    """The same lines without what earlier versions did not measure."""
    kept = [line for line in found if line.get("batch") != "common" or line["partition"] is None]
    for line in kept:
        line.pop("batch", None)
        line.pop("statistics", None)
        for key in ("layers", "cancelled"):
            line.get("divergence", {}).pop(key, None)
    return kept


def add(folder, found):
    text = "".join(json.dumps(line, allow_nan=False) + "\n" for line in found)
    (folder / "signals.jsonl").write_text(text)


def rows(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_stations_are_merges_or_else_activations():
    chain = plain(1.0, 2.0)
    assert profiles.shown(chain, "acv") == [1.0, 2.0]
    assert profiles.level(chain, "acv") == "activation"
    blocks = [*chain, layer("merge", 3, 5.0, branch_acv=4.0)]
    assert profiles.shown(blocks, "acv") == [5.0]
    assert profiles.shown(blocks, "dead") == [0.25, 0.25]
    assert profiles.level(blocks, "acv") == "residual block"
    assert profiles.level(blocks, "dead") == "activation"


@pytest.mark.parametrize(
    ("kind", "recipe", "depth", "stations"),
    [("plainnet", "salunet", 5, 4), ("plainnet", "batchnorm", 5, 4), ("resnet", "none", 8, 3)],
)
def test_depth_counts_alike_whatever_the_recipe(kind, recipe, depth, stations):
    network = build(
        Network(kind=kind, depth=depth, width=4), recipe, (1, 8, 8), 3, torch.Generator()
    )
    inputs = torch.linspace(-1, 1, 256).view(4, 1, 8, 8)
    found = [dataclasses.asdict(x) for x in measure(network, inputs, torch.arange(4) % 3)]
    for figure in by_depth.CAPTIONS:
        assert len(profiles.shown(found, figure)) == stations
    assert len(profiles.shown(found, "dead")) == (depth - 1)


def test_a_line_is_the_mean_and_a_mean_needs_all():
    networks = [plain(1.0, 2.0), plain(3.0, 4.0)]
    assert profiles.means(networks, "acv") == [2.0, 3.0]
    networks[1][-1]["acv"] = None
    assert profiles.means(networks, "acv")[0] == 2.0
    assert math.isnan(profiles.means(networks, "acv")[1])


def drawn(panel):
    """Return the heights of a panel's lines, and the ends of its bands."""
    curves = [list(line.get_ydata()) for line in panel.lines]
    corners = [area.get_paths() for area in panel.collections]
    bands = [(min(p.vertices[:, 1]), max(p.vertices[:, 1])) for paths in corners for p in paths]
    return curves, bands


@pytest.fixture
def measured(study):
    for folder in study.iterdir():
        if folder.is_dir():
            add(folder, lines(range(6)))
    return study


def test_first_middle_and_last_round_with_clients_as_a_band(measured):
    results = read(measured)
    figure = by_depth.figure(read_signals(results), results, "acv")
    titles = [" ".join(panel.get_title(loc="left").split()) for panel in figure.axes]
    rounds = [title.rpartition(", ")[2] for title in titles]
    assert rounds == ["round 0", "round 3", "round 5"] * len(results.conditions)
    curves, bands = drawn(figure.axes[1])
    assert curves == [[4.0] * DEEP] * len(results.series)
    assert bands == [(4.0, 6.0)] * len(results.series)


def test_every_panel_shows_all_that_is_drawn(measured):
    """They share an axis, and the first has less than two powers of ten to show."""
    far = lines(range(6))
    for line in far:
        for place, one in enumerate(line.get("layers", [])):
            one["acv"] *= 300 if line["round"] else 0.2 + 0.1 * place
    add(measured / "salunet-iid-1", far)
    results = read(measured)
    figure = by_depth.figure(read_signals(results), results, "acv")
    for panel in figure.axes:
        low, high = panel.get_ylim()
        assert all(low <= y <= high for curve in drawn(panel)[0] for y in curve)


def test_of_several_seeds_the_lowest_with_signals_is_drawn(measured):
    (measured / "zc-swish-iid-1" / "signals.jsonl").unlink()
    found = read_signals(read(measured))
    chosen = {str(one.run.series): one.run.seed for one in found if "iid" in str(one.run.condition)}
    assert chosen == {"BatchNorm": 1, "ZC-Swish": 2, "SaluNet": 1}


def test_conditions_may_have_measured_other_rounds(measured):
    for name in ("batchnorm", "zc-swish", "salunet"):
        for seed in (1, 2):
            add(measured / f"{name}-iid-{seed}", lines([0]))
    results = read(measured)
    figure = by_depth.figure(read_signals(results), results, "acsm")
    assert len(figure.axes) == 1 + 3 * (len(results.conditions) - 1)


def test_clients_are_as_far_apart_as_the_lines_say(measured):
    results = read(measured)
    found = read_signals(results)
    cosines = apart.figure(found, results, "update_cosine")
    assert drawn(cosines.axes[0])[0][0] == [1, 1 / 2, 1 / 3, 1 / 4, 1 / 5]
    spreads = apart.figure(found, results, "scalar_spread")
    assert drawn(spreads.axes[0])[0][0] == pytest.approx([math.sqrt(0.08 / 3)] * 5)
    row = rows(apart.divergence(found))[0]
    assert (row["round"], row["clients"], row["update_cosine"]) == ("1", "3", "1.0")


def test_what_averaging_cancels_is_drawn_by_layer_and_told_of_each(measured):
    results = read(measured)
    found = read_signals(results)
    figure = apart.layer_figure(found, results)
    titles = [" ".join(panel.get_title(loc="left").split()) for panel in figure.axes]
    rounds = [title.rpartition(", ")[2] for title in titles]
    assert rounds == ["round 1", "round 3", "round 5"] * len(results.conditions)
    assert drawn(figure.axes[0])[0] == [[0.0, 0.1, 0.2, 0.3]] * len(results.series)
    told = [row for row in rows(apart.divergence(found)) if row["round"] == "2"][: DEEP + 2]
    assert [row["layer"] for row in told] == [
        "", *(f"layers.{i}.weights" for i in range(DEEP)), "layers.0.norm",
    ]  # fmt: skip
    assert [row["cancelled"] for row in told] == ["0.5", "0.0", "0.1", "0.2", "0.3", ""]
    assert [row["update_cosine"] for row in told] == ["0.5"] * (DEEP + 1) + [""]
    gaps = [
        (float(row["statistics_mean"]), row["statistics_variance"]) for row in told[:: DEEP + 1]
    ]
    assert gaps == [(pytest.approx(0.2), "-0.5")] * 2
    means = apart.figure(found, results, "statistics_mean")
    assert drawn(means.axes[0])[0][0] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])


def test_runs_of_an_earlier_version_have_no_bands(tmp_path, write_run):
    write_run(tmp_path / "a", [0.1, 0.2], {"recipe": "salunet"})
    add(tmp_path / "a", of_an_earlier_version(lines([0, 1, 2])))
    results = read(tmp_path)
    found = read_signals(results)
    figure = by_depth.figure(found, results, "acv")
    assert [drawn(panel) for panel in figure.axes] == [
        ([[value] * DEEP], [(value, value)]) for value in (1.0, 2.0, 3.0)
    ]
    drawn_keys = {key for key in apart.WORDS if apart.figure(found, results, key)}
    assert drawn_keys == {"update_cosine", "scalar_spread"}
    assert apart.layer_figure(found, results) is None
    assert {row["batch"] for row in rows(by_depth.signals(found))} == {"common", "own"}
    assert {row["layer"] for row in rows(apart.divergence(found))} == {""}


def test_an_old_run_and_a_layer_that_stays_with_clients_leave_gaps(measured):
    """Neither moves what is drawn of others."""
    add(measured / "salunet-iid-1", of_an_earlier_version(lines(range(6))))
    kept = lines(range(6))
    for line in kept:
        line.get("divergence", {}).get("layers", {}).pop("layers.1.weights", None)
    add(measured / "zc-swish-iid-1", kept)
    results = read(measured)
    figure = apart.layer_figure(read_signals(results), results)
    where = ["iid" in panel.get_title(loc="left") for panel in figure.axes].index(True)
    curves = drawn(figure.axes[where])[0]
    assert len(curves) == len(results.series) - 1
    told = sorted(" ".join(f"{height:.1f}" for height in curve) for curve in curves)
    assert told == ["0.0 0.1 0.2 0.3", "0.0 nan 0.2 0.3"]


def test_the_sheet_holds_what_is_drawn(measured):
    found = rows(by_depth.signals(read_signals(read(measured))))
    cell = [row for row in found if row["series"] == "ZC-Swish" and row["condition"] == "iid"]
    assert len(cell) == DEEP * (1 + 7 + 7)
    for batch, images, acv in (("common", "8", "8.0"), ("own", "3", "100.0")):
        where = ("5", "2", batch)
        last = [row for row in cell if (row["round"], row["partition"], row["batch"]) == where]
        assert [(row["station"], row["images"], row["acv"], row["dead"]) for row in last] == [
            (str(place), images, acv, "0.25") for place in (1, 2, 3, 4)
        ]


def test_what_is_not_finite_leaves_a_gap_and_zero_lies_on_the_floor(tmp_path, write_run):
    write_run(tmp_path / "a", [0.1, 0.2], {"recipe": "none"})
    found = lines([0, 1], variance=None)
    found[0]["layers"] = plain(None, 0.0, 1.0)
    for line in found[1:-1]:
        line["layers"] = plain(None, None, None)
        line.get("statistics", {})["layers.0.norm"] = dict.fromkeys(("mean", "variance"))
    found[-1]["divergence"] |= {"update_cosine": None, "cancelled": None}
    add(tmp_path / "a", found)
    results = read(tmp_path)
    chosen = read_signals(results)
    figure = by_depth.figure(chosen, results, "acv")
    heights = drawn(figure.axes[0])[0][0]
    assert math.isnan(heights[0])
    assert heights[1:] == [profiles.FLOORS["acv"], 1.0]
    Image.open(io.BytesIO(figures.png(figure))).verify()
    assert not any(apart.figure(chosen, results, key) for key in apart.WORDS)
    pictures = dict.fromkeys((*by_depth.CAPTIONS, *apart.CAPTIONS))
    assert "How far clients are apart" not in section.section(chosen, results, pictures)


def test_one_client_is_nowhere_apart(tmp_path, write_run):
    write_run(tmp_path / "a", [0.1, 0.2], {"recipe": "salunet"})
    for clients, drawn_for in ((2, len(apart.WORDS)), (1, 0)):
        add(tmp_path / "a", lines([0, 1], clients=clients))
        results = read(tmp_path)
        figures_made = [apart.figure(read_signals(results), results, k) for k in apart.WORDS]
        assert sum(figure is not None for figure in figures_made) == drawn_for


@pytest.mark.slow
def test_a_report_has_the_section_only_where_there_are_signals(tmp_path, write_run):
    write_run(tmp_path / "a", [0.1, 0.2], {"recipe": "salunet"})
    add(tmp_path / "a", lines([0, 1]))
    page = write(tmp_path).read_text()
    assert "<h2>Signals</h2>" in page
    names = {path.stem for path in (tmp_path / "figures").glob("signals-*.png")}
    keys = (*by_depth.CAPTIONS, *apart.CAPTIONS)
    assert names == {f"signals-{key.replace('_', '-')}" for key in keys}
    assert [name for name in names if f'id="{name}-' not in page] == []
    assert len(rows((tmp_path / "signals.csv").read_text())) == DEEP * 8
    assert len(rows((tmp_path / "divergence.csv").read_text())) == 1 + DEEP + 1
    (tmp_path / "a" / "signals.jsonl").unlink()
    assert "<h2>Signals</h2>" not in write(tmp_path).read_text()
    assert not list(tmp_path.rglob("signals*"))
    assert not (tmp_path / "divergence.csv").exists()


def test_a_damaged_file_is_said_in_one_line_and_nothing_is_written(measured):
    path = measured / "salunet-iid-1" / "signals.jsonl"
    path.write_text("{\n")
    with pytest.raises(ValueError, match=r"signals\.jsonl is damaged"):
        write(measured)
    assert not (measured / "report.html").exists()
    assert not (measured / "figures").exists()


def probed(recipe, seed, layers, run="", alpha=0.3):
    flat = {"recipe": recipe, "seed": seed, "partition.alpha": alpha}
    return Probe(Experiment.from_flat(flat), run, int(bool(run)), 8, tuple(layers), Chain())


def test_a_probe_s_figure_has_a_panel_a_figure_and_a_row_a_condition():
    seeds = [probed("none", 1, plain(1.0, 2.0)), probed("none", 2, plain(3.0, 4.0))]
    figure = propagation.figure([*seeds, probed("swish", 1, plain(5.0, 5.0))])
    assert [p.get_title(loc="left") for p in figure.axes] == list(profiles.WORDS.values())
    curves, bands = drawn(figure.axes[1])
    assert curves == [[2.0, 3.0], [5.0, 5.0]]
    assert bands[0] == (1.0, 4.0)
    runs = [probed("none", 1, plain(1.0), run=f"a-{alpha}", alpha=alpha) for alpha in (1.0, 0.1)]
    runs.append(probed("swish", 1, plain(1.0), run="b"))
    assert len(propagation.figure(runs).axes) == 4 * len({p.knobs.partition.alpha for p in runs})


def test_a_logarithmic_axis_shows_two_powers_of_ten():
    (panel,) = propagation.figure([probed("none", 1, plain(2.0, 3.0))]).axes[1:2]
    assert panel.get_ylim() == (1.0, 10.0)


def test_branches_are_dashed_below_their_blocks():
    blocks = [layer("merge", i, 2.0**i, branch_acv=0.5**i) for i in range(3)]
    (panel,) = propagation.figure([probed("none", 1, blocks)]).axes[1:2]
    assert drawn(panel)[0] == [[1.0, 2.0, 4.0], [1.0, 0.5, 0.25]]


def test_a_probe_s_summary_and_sheet_say_what_is_not_finite():
    networks = [probed("none", 1, plain(None, 2.0)), probed("none", 2, plain(1.0, 4.0))]
    (row,) = propagation.summary(networks)
    assert (row["acv_first"], row["acv_last"], row["acv_min"]) == (None, 3.0, 3.0)
    assert (row["networks"], row["dead"]) == (2, 0.25)
    first = rows(propagation.as_csv(networks))[1]
    assert (first["kind"], first["acv"]) == ("activation", "")
    assert figures.svg(propagation.figure(networks)) == figures.svg(propagation.figure(networks))
