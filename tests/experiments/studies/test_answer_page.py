"""The tables of the page with the answer, redrawn from the committed rows of its blocks."""

import csv
from pathlib import Path

import fl
from experiments.studies import ledger
from experiments.studies.answer import ANSWER
from experiments.studies.answer.conditions import EVEN, FULL, SKEWED, contenders
from experiments.studies.answer.hypotheses import best_normalizer
from fl.simulation.study import Study, each, grid

DOCS = Path(fl.__file__).parents[1] / "docs"
PAGE = (DOCS / "answer.md").read_text(encoding="utf-8").splitlines()
TUNED = DOCS / "studies/answer/winners.toml"
NAMES = {
    "nf": "NF (scaled weight standardization)",
    "bn-average": "BatchNorm",
    "bn-recalibrate": "BatchNorm, recalibrated",
    "ws-groupnorm": "weight standardization with GroupNorm",
    "zc-swish": "ZC-Swish",
    "salunet": "SaluNet",
    "none": "ReLU",
    "groupnorm": "GroupNorm, 4 groups",
    "layernorm": "LayerNorm",
    "groupnorm-2": "GroupNorm, 2 groups",
}
"""In the order of the table."""
SKEWS = {"even": EVEN, "1": SKEWED}


def winners() -> dict[str, dict[str, dict[str, str]]]:
    """Return the winner's row of the last rung, by skew and contender."""
    with (DOCS / "studies/answer/tuning.csv").open(newline="", encoding="utf-8") as file:
        played = list(csv.DictReader(file))
    last = max(int(row["rung"]) for row in played)
    best = [row for row in played if int(row["rung"]) == last and row["kept"] == "True"]
    found: dict[str, dict[str, dict[str, str]]] = {skew: {} for skew in SKEWS}
    for row in best:
        bn = {"average": "bn-average", "recalibrate": "bn-recalibrate"}.get(row["state.bn"])
        skew = "even" if row["partition.kind"] == "iid" else row["partition.alpha"][:1]
        assert (bn or row["recipe"]) not in found[skew]
        found[skew][bn or row["recipe"]] = row
    return found


def test_the_table_of_rates_is_what_tuning_found():
    won = winners()
    assert all(set(of) == set(NAMES) for of in won.values())
    printed = [
        line for line in PAGE if line.startswith("| ") and line.split(" |")[0][2:] in NAMES.values()
    ]
    expected = []
    for name, title in NAMES.items():
        rows = [won[skew][name] for skew in SKEWS]
        scores = [float(row["score"]) for row in rows]
        cells = [
            f"{float(row['client.lr']):g} | {100 * y:.1f}"
            for row, y in zip(rows, scores, strict=True)
        ]
        kept = (scores[1] - 0.1) / (scores[0] - 0.1)
        expected.append(f"| {title} | {' | '.join(cells)} | {100 * kept:.0f} % |")
    assert printed == expected


def test_the_best_tuned_normalizer_of_the_page_is_that_of_the_rule():
    for skew, of in winners().items():
        scores = {name: float(row["score"]) for name, row in of.items()}
        assert best_normalizer(scores, list(scores)) == "nf", skew


def test_a_study_of_these_contenders_takes_these_winners():
    """`fednf study … --tuned` finds each contender's row, also where one is a part of another."""
    rows = contenders(FULL.base.rounds)
    won = winners()
    for name in NAMES:
        for skew, knobs in SKEWS.items():
            one = grid(FULL.base, [rows[name]], [knobs], each("seed", (1001,)))
            (tuned,) = Study("s", "?", one).tuned(TUNED).experiments
            assert tuned.client.lr == float(won[skew][name]["client.lr"]), (name, skew)


def test_the_runs_of_the_first_block_that_are_done_are_those_that_the_page_counts():
    study = ANSWER["answer-noise"]["full"]()
    kept = ledger.read(DOCS / "studies/answer/noise")
    asked = {one.identity: one for one in study.experiments}
    done = [run for run in kept if run.answers(asked[run.header["identity"]])]
    assert len(done) == len(kept)
    said = f"Of block B0, {len(done)} of {len(asked)} runs are done"
    assert any(line.startswith(said) for line in PAGE), said
