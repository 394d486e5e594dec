"""The tables of the page with the answer, redrawn from the committed rows of its blocks."""

import csv
import io
import itertools
import re
from collections.abc import Iterable
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import gmean, ttest_1samp

import fl
from experiments.studies import ledger
from experiments.studies.answer import ANSWER, judged
from experiments.studies.answer.__main__ import main
from experiments.studies.answer.batch import EVEN_AT_ONE, INSTANCE_AT_ONE, OTHERS_AT_ONE
from experiments.studies.answer.batch import RATES as BATCH_RATES
from experiments.studies.answer.cause import AT_LATER_RATES
from experiments.studies.answer.cause import RATES as CAUSE_RATES
from experiments.studies.answer.conditions import EVEN, FULL, SKEWED, contenders
from experiments.studies.answer.hypotheses import best_normalizer
from experiments.studies.answer.mechanism import RUNNING, SIZES
from experiments.studies.answer.primary import RATES
from experiments.studies.answer.rows import (
    best_validated,
    ended,
    played,
    tried_at_one,
    tried_to_the_end,
    won,
)
from experiments.studies.answer.tables import (
    averaging,
    controls,
    found,
    micro_batches,
)
from experiments.studies.answer.tables.words import NAMES as WORDS
from experiments.studies.answer.tables.words import plain
from experiments.studies.answer.tuning import AT_ONE_EVEN, LATE
from fl.simulation.study import Study, each, from_file, grid

DOCS = Path(fl.__file__).parents[1] / "docs"
PAGES = [DOCS / "answer.md", *(DOCS / "studies/answer").rglob("*.md")]
ROWS = DOCS / "studies/answer"
NAMES = [
    "nf",
    "bn-average",
    "bn-recalibrate",
    "ws-groupnorm",
    "zc-swish",
    "salunet",
    "none",
    "groupnorm",
    "layernorm",
    "groupnorm-2",
]
"""In the order of the table."""
SKEWS = {"even": EVEN, "α 1": SKEWED}


@pytest.fixture(scope="module")
def claims():
    """What the committed rows say of all hypotheses."""
    return list(found.claims(ROWS))


@pytest.fixture(scope="module")
def tables():
    """All tables of the committed rows, as the command prints them; it takes a minute."""
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()) as told:
        patch.setattr("sys.argv", ["answer", str(ROWS)])
        assert main() == 0
    return told.getvalue().rstrip("\n").split("\n\n")


def printed(lines: Iterable[str]) -> bool:
    """Say whether a page has these lines as a whole table, which has rows."""
    table = list(lines)
    assert len(table) > 2
    text = "\n".join(["", "", *table, "", ""])
    return any(text in path.read_text(encoding="utf-8") for path in PAGES)


def test_the_table_of_rates_is_what_tuning_found():
    assert printed(found.halved(ROWS))


def test_the_best_tuned_normalizer_of_the_page_is_that_of_the_rule():
    for of in best_validated(ROWS).values():
        assert best_normalizer(of, list(of)) == "nf"


def test_a_study_of_these_contenders_takes_these_winners():
    """`fednf study … --tuned` finds each contender's row, also where one is a part of another."""
    rows, best = contenders(FULL.base.rounds), won(ROWS, ["primary.csv"])
    for name in NAMES:
        for skew, knobs in SKEWS.items():
            one = grid(FULL.base, [rows[name]], [knobs], each("seed", (1001,)))
            (tuned,) = Study("s", "?", one).tuned(ROWS / "tuning/primary.toml").experiments
            assert tuned.client.lr == best[name, skew]["client.lr"], (name, skew)


def test_blocks_have_the_rates_that_tuning_found():
    """Of B2 those that are best at the end; at α 3 that of both other skews if it was not tried."""
    best = {key: max(of, key=of.__getitem__) for key, of in tried_to_the_end(ROWS).items()}
    for name, rates in RATES.items():
        like = "bn-average" if name == "bn-fixbn" else name  # which it is until half of the rounds
        even, between, skewed = rates
        assert (best[like, "even"], best[like, "α 1"]) == (even, skewed), name
        assert best.get((like, "α 3")) == between or even == between == skewed, name
    early = {key: row["client.lr"] for key, row in won(ROWS).items()}
    of_h5 = "zc-swish", "leaky-relu", "swish"
    for name, rate in CAUSE_RATES.items():
        assert (early if name in of_h5 else best)[name, "α 1"] == rate, name
    for name, rate in AT_LATER_RATES.values():
        assert best[name, "α 1"] == rate, name
    tried = tried_at_one(ROWS)
    best_at_one = {key: max(of, key=of.__getitem__) for key, of in tried.items()}
    skewed = {**BATCH_RATES[1], **OTHERS_AT_ONE, **INSTANCE_AT_ONE}
    assert best_at_one == {
        **{(name, "α 1"): rate for name, rate in skewed.items()},
        **{(name, "even"): rate for name, rate in EVEN_AT_ONE.items()},
    }
    assert all(best_at_one[key] < max(of) for key, of in tried.items())
    assert all(best_at_one[name, "even"] > min(tried[name, "even"]) for name in EVEN_AT_ONE)
    assert {name: tuple(sorted(tried[name, "even"])) for name in EVEN_AT_ONE} == AT_ONE_EVEN
    assert BATCH_RATES[4] == {name: best[name, "α 1"] for name in BATCH_RATES[1]}


def test_what_is_tried_to_the_end_begins_where_tuning_ended_and_goes_past_the_best():
    last: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for table in ("primary.csv", "between.csv"):
        for row, name, skew in played(ROWS / "tuning" / table):
            if row["rung"] == 39 and name in RATES:
                last.setdefault((name, skew), []).append((row["score"], row["client.lr"]))
    done = tried_to_the_end(ROWS)
    assert done.keys() == LATE.keys() > last.keys()
    for key, of in done.items():
        assert sorted(of) == sorted(LATE[key])
        assert max(of, key=of.__getitem__) < max(of), key
        if key in last:
            first, second = sorted(last[key], reverse=True)
            close = first[0] - second[0] < 0.01
            assert {first[1], *([second[1]] if close else [])} <= of.keys(), key


def test_rates_that_were_tried_to_the_end_are_on_the_page():
    assert printed(found.tried(ROWS))
    assert printed(found.tried_with_one(ROWS))


@pytest.mark.parametrize("table", [found.noise, found.pairs, controls.orders])
def test_tables_of_the_first_block_are_what_its_rows_say(table):
    assert printed(table(ended(ROWS / "noise")))


def test_the_control_of_rates_is_what_tuning_found():
    assert printed(controls.at_another_s_rate(ROWS))


def test_tables_of_the_cause_are_what_its_rows_say(claims):
    runs = found.runs_of_cause(ROWS)
    assert printed(found.parts_of_zc_swish(runs))
    assert printed(found.beside_frozen(runs))
    assert printed(found.after_the_last_round(ROWS))
    assert printed(controls.pairs_of_cause(runs))
    assert printed(found.hypotheses(claims))


@pytest.mark.parametrize("name", ["H1", "H2", "H4", "H5", "H6"])
def test_the_page_begins_with_the_figures_of_its_hypotheses(claims, name):
    """And with no others; H3 is told in log odds, see below."""
    claims = [claim for claim in claims if claim.name == name]
    lines = PAGES[0].read_text(encoding="utf-8").splitlines()
    (state,) = (x for x in lines if x.startswith(f"| {name} |") and x.count("|") == 4)
    assert set(re.findall(r"\d+\.\d", state)) == {f"{100 * abs(c.value):.1f}" for c in claims}
    assert state.endswith(f"; {claims[0].n} blocks |")


def test_what_is_kept_by_the_endpoint_is_what_the_third_hypothesis_says(claims, tables):
    (scales,) = (table for table in tables if table.startswith("| contender | clients | log odds"))
    for claim in claims:
        if claim.name == "H3":
            name, skew = claim.where.split(", ")
            told = f"{plain(claim.value)} {plain(*claim.interval)}"
            assert f"| {WORDS[name]} | {skew} | {told} |" in scales


def test_tables_of_batches_are_on_the_page():
    assert printed(found.batches(judged.by_batch(ROWS)))
    assert printed(found.with_one(judged.with_one(ROWS)))
    assert printed(found.beside_instance(judged.with_one(ROWS)))
    assert printed(micro_batches.skew(judged.at_one(ROWS)))


def test_what_the_page_begins_with_about_batches_of_one_is_in_its_tables():
    tables = [
        found.batches(judged.by_batch(ROWS)),
        found.with_one(judged.with_one(ROWS)),
        found.beside_instance(judged.with_one(ROWS)),
        micro_batches.skew(judged.at_one(ROWS)),
        micro_batches.by_statistics(ROWS / "batch/statistics.csv"),
    ]
    known = set(re.findall(r"\d+\.\d", "\n".join(itertools.chain.from_iterable(tables))))
    page = PAGES[0].read_text(encoding="utf-8")
    told = page.partition("- *Batches of 1*")[2].partition("- *Batches of 4*")[0]
    assert len(figures := set(re.findall(r"\d+\.\d", told))) > 10
    assert figures <= known


def test_networks_that_were_scored_by_other_statistics_are_those_of_committed_runs():
    table = ROWS / "batch/statistics.csv"
    assert printed(micro_batches.by_statistics(table))
    kept = [run for name in ("others", "even") for run in ledger.read(ROWS / "batch" / name)]
    results = [run.result for run in kept if run.header["knobs"]["recipe"] == "batchnorm"]
    rows = [row for _, row in ledger.rows(table)]
    kinds = [(row["model_sha256"], row["statistics"]) for row in rows]
    assert sorted(kinds, key=str) == sorted(
        ((of["model_sha256"], kind) for of in results for kind in (RUNNING, *SIZES)), key=str
    )
    running = {row["model_sha256"]: row for row in rows if row["statistics"] == RUNNING}
    for of in results:
        row = running[of["model_sha256"]]
        told = [row["accuracy"], row["loss"]]
        assert told == pytest.approx([of["final_accuracy"], of["final_loss"]], rel=1e-4)


def test_what_averaging_does_is_what_rows_say():
    table = list(averaging.before_and_after(ROWS / "signals"))
    assert printed(table)
    assert printed(averaging.over_rounds(ROWS / "signals"))
    assert printed(averaging.machines(ROWS))
    with (ROWS / "signals/signals.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["batch"] == "common"]
    asked = {"series": "NF", "round": "30", "station": "7"}
    acv = {
        row["partition"]: float(row["acv"])
        for row in rows
        if asked.items() <= row.items() and row["condition"] != "iid"
    }
    shared = acv.pop("")
    assert len(acv) == 10
    (told,) = (line for line in table if line.startswith("| α 1 | NF |"))
    assert told.split(" | ")[4] == f"{shared / gmean(list(acv.values())):.2f}"


def test_last_rounds_beside_each_image_s_own_statistics_are_what_rows_say():
    table = list(micro_batches.last_round(ROWS))
    assert printed(table)
    rows = [row for _, row in ledger.rows(ROWS / "batch/statistics.csv")]
    own = {
        row["seed"]: row["accuracy"]
        for row in rows
        if row["statistics"] == 1 and row["partition.kind"] != "iid"
    }
    asked = {"recipe": "batchnorm", "client.batch-size": 4}
    runs = [
        run for run in ledger.read(ROWS / "batch") if asked.items() <= run.header["knobs"].items()
    ]
    d = [100 * (own[run.header["knobs"]["seed"]] - run.result["final_accuracy"]) for run in runs]
    low, high = ttest_1samp(d, 0).confidence_interval(0.95)
    told = f"{np.mean(d):+.1f} [{low:+.1f}, {high:+.1f}]".replace("-", "−")
    (row,) = (line for line in table if line.startswith("| α 1 | 4 | BatchNorm |"))
    assert row.split(" | ")[6:] == [told, "0 %", "8 |"]


def test_controls_of_labels_are_what_their_rows_say():
    study = from_file(ROWS / "permuted.py")
    assert {(one.partition.kind, one.seed) for one in study.experiments} == {("iid", 1401)}
    runs = ended(ROWS / "permuted")
    assert len(runs) == len(study.experiments) == len(RATES)
    assert printed(controls.permuted(runs))
    assert printed(controls.permuted_again(ended(ROWS / "permuted/again")))
    for name in ("permuted", "permuted/again"):
        asked = from_file(ROWS / f"{name}.py")
        done = ledger.done(asked, ROWS / name)
        assert list(done) == asked.folders(), "its source is in each run"


BLOCKS = {
    "answer-noise": "noise",
    "answer-tuning-late": "tuning/late",
    "answer-tuning-batch-late": "tuning/batch-late",
    "answer-tuning-batch-even": "tuning/batch-late/even",
    "answer-tuning-batch-instance": "tuning/batch-late/instance",
    "answer-cause": "cause",
    "answer-cause-rate": "cause/rate",
    "answer-cause-late": "cause/late",
    "answer-primary": "primary",
    "answer-batch": "batch",
    "answer-batch-others": "batch/others",
    "answer-batch-even": "batch/even",
    "answer-batch-instance": "batch/instance",
    "answer-signals": "signals",
}
UNFINISHED = {"answer-cause": "B3"}


@pytest.mark.parametrize("block", BLOCKS)
def test_a_block_s_committed_runs_are_those_that_its_study_asks_for(block):
    """All of them, or as many as the page says."""
    study = ANSWER[block]["full"]()
    kept = ledger.read(ROWS / BLOCKS[block])
    asked = {one.identity: one for one in study.experiments}
    done = [run for run in kept if run.answers(asked[run.header["identity"]])]
    assert len(done) == len(kept)
    told = f"Of block {UNFINISHED.get(block)}, {len(done)} of {len(asked)} runs are done"
    page = " ".join(PAGES[0].read_text(encoding="utf-8").split())
    assert len(done) == len(asked) or told in page


def test_all_tables_are_on_pages(tables):
    assert all(printed(table.splitlines()) for table in tables)
    assert len(tables) == 29, "the command leaves a table out whose rows are not there"


def test_bad_input_is_one_line(monkeypatch, capsys, tmp_path):
    def said(*words):
        monkeypatch.setattr("sys.argv", ["answer", *map(str, words)])
        return main(), *capsys.readouterr()

    for words in ((), (tmp_path / "none",), (ROWS, ROWS)):
        status, out, err = said(*words)
        assert (status, out, err.count("\n")) == (2, "", 1)
