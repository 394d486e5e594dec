"""A table that others published fits the study that declares it, or is refused in one line."""

import json

import pytest

import fl

BASE = fl.Experiment.from_flat({"rounds": 1})
METHODS = [{"strategy.kind": "fedavg"}, {"strategy.kind": "scaffold"}]
SKEWS = [{"partition.kind": "iid"}, {"partition.kind": "dirichlet"}]


def table(rows, columns=SKEWS):
    return fl.Published("a paper", "its conditions", tuple(columns), tuple(rows), ("ours",))


def study(*tables, base=BASE):
    return fl.Study("s", "?", fl.grid(base, METHODS, SKEWS), tables=tables)


WHOLE = table([(METHODS[0], (70.5, (60.25, 1.5))), (METHODS[1], (None, 61))])


def test_cells_have_the_knobs_of_their_row_and_column():
    assert list(WHOLE.cells()) == [
        ({"strategy.kind": "fedavg", "partition.kind": "iid"}, 70.5, None),
        ({"strategy.kind": "fedavg", "partition.kind": "dirichlet"}, 60.25, 1.5),
        ({"strategy.kind": "scaffold", "partition.kind": "dirichlet"}, 61, None),
    ]


def test_a_study_s_file_has_the_whole_table(tmp_path):
    study(WHOLE).begin(tmp_path / "s", "fednf study s")
    (told,) = json.loads((tmp_path / "s" / "study.json").read_text(encoding="utf-8"))["tables"]
    found = fl.Published.of(told)
    assert (found.source, found.setup, found.differences) == (
        "a paper",
        "its conditions",
        ("ours",),
    )
    assert list(found.cells()) == list(WHOLE.cells())


def test_a_study_without_tables_has_the_file_that_it_had(tmp_path):
    study().begin(tmp_path / "s", "fednf study s")
    assert "tables" not in json.loads((tmp_path / "s" / "study.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([(METHODS[0], (1.0,))], "row strategy.kind=fedavg of a paper has 1 numbers for 2 columns"),
        ([({"strategy.kind": "fednova"}, (1, None))], "no experiment of the study has .*fednova"),
    ],
)
def test_what_does_not_fit_is_refused(rows, told):
    with pytest.raises(fl.ConfigError, match=told):
        study(table(rows))


def test_what_nobody_published_need_not_be_asked():
    study(table([({"strategy.kind": "fednova"}, (None, None))]))


def test_clients_are_an_endpoint_where_they_score_the_last_network():
    asked = fl.Contrasts(endpoint="clients")
    scored = {"partition.held-out": 0.2, "evaluation.clients": True}
    fl.Study("s", "?", fl.grid(BASE.replace(scored), METHODS), contrasts=asked)
    with pytest.raises(fl.ConfigError, match=r"set partition\.held-out and evaluation\.clients"):
        fl.Study(
            "s", "?", fl.grid(BASE.replace({"partition.held-out": 0.2}), METHODS), contrasts=asked
        )
