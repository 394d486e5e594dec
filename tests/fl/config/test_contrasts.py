"""What a study declares of its comparisons fits its experiments, or is refused in one line."""

import json
from dataclasses import asdict

import pytest

import fl

BASE = fl.Experiment.from_flat({"rounds": 1})
RECIPES = [{"recipe": name} for name in ("batchnorm", "zc-swish", "salunet")]
SKEWS = [{"partition.kind": "iid"}, {"partition.kind": "dirichlet"}]


def study(contrasts, base=BASE):
    return fl.Study("s", "?", fl.grid(base, RECIPES, SKEWS), contrasts=contrasts)


def test_what_fits_is_kept():
    asked = fl.Contrasts(
        {"recipe": "batchnorm"}, ({"recipe": "zc-swish", "partition.kind": "iid"},), margin=2
    )
    assert study(asked).contrasts == asked
    assert study(asked).fixing({"rounds": 3}).contrasts == asked


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"reference": {"recipe": "zc-swisch"}}, "no experiment of the study has recipe=zc-swisch"),
        ({"family": ({"recipe": "none"},)}, "no experiment of the study has recipe=none"),
        (
            {"reference": {"recipe": "batchnorm"}, "family": ({"recipe": "batchnorm"},)},
            "recipe=batchnorm is the reference itself",
        ),
        ({"margin": 0}, "margin=0, expected a number above 0"),
        ({"margin": float("inf")}, "margin=inf"),
        ({"endpoint": "best"}, "endpoint='best'; known: late-mean, last-round, validated"),
        ({"endpoint": "validated"}, "needs validation images; set data.validation"),
    ],
)
def test_what_does_not_fit_is_refused(wrong, told):
    with pytest.raises(fl.ConfigError, match=told):
        study(fl.Contrasts(**wrong))


def test_a_validated_endpoint_is_taken_where_there_are_such_images():
    base = BASE.replace({"data.validation": 0.1})
    study(fl.Contrasts(endpoint="validated"), base)


FOUR = [(who, where) for who in ("a", "b") for where in ("even", "skewed")]


def test_a_declaration_that_comes_after_runs_says_so(tmp_path):
    first, second = fl.Contrasts(margin=1), fl.Contrasts(margin=2)

    def told(contrasts, comparisons=4):
        cells = [("a", str(number)) for number in range(comparisons)]
        study(contrasts).begin(tmp_path / "s", "fednf study s", cells)
        return json.loads((tmp_path / "s" / "study.json").read_text())["contrasts"]

    assert told(first) == {
        "reference": {}, "family": [], "margin": 1, "endpoint": "late-mean", "runs_done_before": 0,
        "comparisons": 4,
    }  # fmt: skip
    (tmp_path / "s" / "a-run").mkdir()
    (tmp_path / "s" / "a-run" / "result.json").write_text("{}")
    assert told(first, 6) == told(first, 2), "a study that is cut down keeps what it asked"
    assert (told(first)["runs_done_before"], told(first)["comparisons"]) == (0, 6)
    assert told(second)["runs_done_before"] == 1
    assert told(second) == {**told(second), "runs_done_before": 1, "comparisons": 4}


def test_a_declaration_counts_a_ledger_s_runs_once(tmp_path):
    """What the ledger declared stands where nothing is done yet; else it would come too late."""
    asked, other = fl.Contrasts(margin=1), {"margin": 2, "runs_done_before": 0}
    same = {**asdict(asked), "family": [], "runs_done_before": 0, "comparisons": 4}
    del same["looks"]  # which without looks is not told
    (tmp_path / "here" / "a-run").mkdir(parents=True)
    (tmp_path / "here" / "a-run" / "result.json").write_text("{}")

    def after(folder, declared):
        kept = ("a-run", "b-run")
        study(asked).begin(tmp_path / folder, "fednf study s", FOUR, kept, declared)
        told = json.loads((tmp_path / folder / "study.json").read_text())
        return told["contrasts"]["runs_done_before"]

    assert after("here", same) == 2
    assert (after("there", same), after("elsewhere", other)) == (0, 2)


def test_what_an_earlier_version_wrote_of_a_declaration_is_the_same_declaration(tmp_path):
    asked = study(fl.Contrasts(margin=1))
    asked.begin(tmp_path, "fednf study s", FOUR)
    path = tmp_path / "study.json"
    about = json.loads(path.read_text())
    del about["contrasts"]["comparisons"], about["file_sha256"]
    path.write_text(json.dumps(about))
    (tmp_path / "a-run").mkdir()
    (tmp_path / "a-run" / "result.json").write_text("{}")
    asked.begin(tmp_path, "fednf study s", FOUR)
    now = json.loads(path.read_text())["contrasts"]
    assert (now["runs_done_before"], now["comparisons"]) == (0, 4)
