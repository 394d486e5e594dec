"""A bug in a user's code is an error at once; one dead worker costs one client."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import fl
from experiments.cli import main
from fl.nn.layers import activations
from fl.server.journal import Journal

ROOT = Path(fl.__file__).parent.parent
PLANTED = """
import os, sys
import torch
from fl.nn.layers import activations

def planted(self, x):
    if self.training:
        {bug}
    return x

activations.ZCSwish.forward = planted
if __name__ == "__main__":
    sys.argv[0] = "fednf"
    from experiments.cli.main import main
    main()
"""
SHAPES = "return x @ torch.ones(3, 5)"
ENGINES = {
    "sequential": ("--set", "engine=sequential", "--workers", "1"),
    "lanes": ("--set", "engine=vectorized", "--set", "vectorized.level=eager", "--workers", "1"),
    "workers": ("--set", "engine=sequential", "--workers", "2"),
    "lanes of workers": (
        "--set",
        "engine=vectorized",
        "--set",
        "vectorized.level=eager",
        "--workers",
        "2",
    ),
}
TINY = [
    "partition.clients=6",
    "sampling.clients=4",
    "network.depth=3",
    "network.width=4",
    "rounds=2",
]
SMALL = [word for knob in TINY for word in ("--set", knob)]


def fednf(folder: Path, bug: str, *words: str, typed: str = "") -> SimpleNamespace:
    """Run a command in whose activations a bug is planted, as a user's own program does."""
    file = folder / "mine.py"
    file.write_text(PLANTED.format(bug=bug))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(file), *words], env=environment, input=typed, capture_output=True,
        text=True, cwd=folder,
    )  # fmt: skip
    return SimpleNamespace(status=done.returncode, out=done.stdout, err=done.stderr, file=file)


@pytest.mark.parametrize(
    "engine",
    [
        "sequential",
        pytest.param("lanes of workers", marks=pytest.mark.slow),
        pytest.param("lanes", marks=pytest.mark.slow),
        pytest.param("workers", marks=pytest.mark.slow),
    ],
)
def test_a_bug_in_an_activation_ends_the_run_with_the_user_s_line(tmp_path, engine):
    answer = fednf(tmp_path, SHAPES, "run", *SMALL, *ENGINES[engine], "--out", "run")
    assert answer.status == 1, answer.err
    *trace, last = answer.err.splitlines()
    line = PLANTED.splitlines().index("        {bug}") + 1
    assert last.startswith("fednf: round 1: no client could train; client ")
    assert "RuntimeError: mat1 and mat2 shapes cannot be multiplied" in last
    assert f"({answer.file}:{line})" in last
    frames = [text for text in trace if text.startswith("  File ")]
    assert frames[-1] == f'  File "{answer.file}", line {line}, in planted'
    kept = sorted(path.name for path in (tmp_path / "run" / "errors").iterdir())
    assert len(kept) == 4
    assert all(name.startswith("round-1-client-") for name in kept)
    assert SHAPES in (tmp_path / "run" / "errors" / kept[0]).read_text()
    assert not (tmp_path / "run" / "result.json").exists()
    assert len((tmp_path / "run" / "rounds.jsonl").read_text().splitlines()) == 1  # round 0


@pytest.mark.slow
def test_a_bug_that_one_client_has_is_told_and_costs_that_client(tmp_path):
    bug = "if len(x) == 1: return x @ torch.ones(3, 5)"  # a last batch of one image
    words = ("--set", "engine=sequential", "--set", "client.batch-size=8", "--workers", "1")
    answer = fednf(tmp_path, bug, "run", *SMALL, *words, "--out", "run")
    assert answer.status == 0, answer.err
    lines = Journal(tmp_path / "run").rounds()
    refused = {(x["round"], r["partition"]) for x in lines for r in x["refused"]}
    kept = {path.name for path in (tmp_path / "run" / "errors").iterdir()}
    assert kept == {f"round-{number}-client-{partition}.txt" for number, partition in refused}
    assert 0 < len(refused) < 8


@pytest.mark.slow
def test_a_bug_in_the_server_s_evaluation_has_the_user_s_line_too(tmp_path):
    bug = "pass\n    else: return x @ torch.ones(3, 5)"
    answer = fednf(tmp_path, bug, "run", *SMALL, *ENGINES["sequential"], "--out", "run")
    assert answer.status == 1
    assert answer.err.splitlines()[-1].startswith("fednf: RuntimeError: mat1 and mat2 shapes")
    assert f"({answer.file}:" in answer.err.splitlines()[-1]
    assert [p.name for p in (tmp_path / "run" / "errors").iterdir()] == ["round-0-server.txt"]


@pytest.mark.slow
def test_breakpoint_stops_in_a_client_under_debug(tmp_path):
    words = ("run", "--debug", *SMALL, "--out", "run")
    answer = fednf(tmp_path, "breakpoint()", *words, typed="print('ndim', x.ndim)\nquit\n")
    assert "(Pdb) ndim 4" in answer.out
    assert answer.status == 1


@pytest.mark.parametrize(
    "error", [LookupError("mine"), FileNotFoundError("/nonexistent")], ids=repr
)
def test_under_debug_the_first_error_is_raised_as_it_is(tmp_path, monkeypatch, error):
    def planted(self, x):
        raise error

    monkeypatch.setattr(activations.ZCSwish, "forward", planted)
    monkeypatch.setattr(
        sys, "argv", ["fednf", "run", "--debug", *SMALL, "--out", str(tmp_path / "run")]
    )
    with pytest.raises(type(error)) as raised:
        main.main()
    assert raised.value is error
    assert raised.traceback[-1].name == "planted"


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_a_client_that_calls_sys_exit_is_told_like_any_other_bug(tmp_path, engine):
    answer = fednf(tmp_path, "sys.exit(0)", "run", *SMALL, *ENGINES[engine], "--out", "run")
    assert answer.status == 1
    assert f"({answer.file}:" in answer.err.splitlines()[-1]
    assert not (tmp_path / "run" / "result.json").exists()


def test_debug_takes_no_workers(tmp_path, monkeypatch, capsys):
    words = ["run", "--debug", "--workers", "2", *SMALL, "--out", str(tmp_path / "run")]
    monkeypatch.setattr(sys, "argv", ["fednf", *words])
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert (ended.value.code, capsys.readouterr().err.count("\n")) == (2, 1)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_worker_that_dies_costs_its_client_and_where_all_die_the_run_fails(tmp_path):
    some = "len(x) == 1 and os._exit(3)"
    words = (*ENGINES["workers"], "--set", "client.batch-size=8")
    answer = fednf(tmp_path, some, "run", *SMALL, *words, "--out", "some")
    assert answer.status == 0, answer.err
    lines = Journal(tmp_path / "some").rounds()
    reasons = [refusal["reason"] for line in lines for refusal in line["refused"]]
    assert 0 < len(reasons) < 8
    assert all("exit code 3" in reason for reason in reasons)
    answer = fednf(tmp_path, "os._exit(3)", "run", *SMALL, *ENGINES["workers"], "--out", "all")
    assert answer.status == 1
    assert answer.err.splitlines()[-1] == (
        "fednf: no worker lived long enough to reply: exit code 3"
    )
    assert not (tmp_path / "all" / "result.json").exists()


@pytest.mark.slow
def test_a_study_goes_on_with_its_other_runs_and_lists_the_one_that_failed(tmp_path):
    (tmp_path / "trial.py").write_text(
        "from fl.simulation.study import Study, grid\nfrom fl.config import Experiment\n"
        "base = Experiment.from_flat({'partition.clients': 6, 'sampling.clients': 2, 'rounds': 1,"
        " 'network.depth': 3, 'network.width': 4})\n"
        "STUDY = Study('trial', '?', grid(base, [{'recipe': r} for r in ('zc-swish', 'none')]))\n"
    )
    answer = fednf(tmp_path, SHAPES, "study", "trial.py", "--jobs", "1", "--out", "study")
    assert answer.status == 1
    (failed,) = [line for line in answer.out.splitlines() if line.startswith("failed: ")]
    assert failed.startswith(
        "failed: zc-swish_seed-1: ClientsFailed: round 1: no client could train"
    )
    assert f"({answer.file}:" in failed
    assert "1 of 2 runs" in answer.out
    assert (tmp_path / "study" / "none_seed-1" / "result.json").exists()
