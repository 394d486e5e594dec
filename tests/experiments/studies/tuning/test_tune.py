"""`fednf tune`: its page, its refusals, and runs that it plays in truth."""

import csv
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import fl
from experiments.cli import tune as tune_cli
from experiments.studies.tuning.plan import Plan
from experiments.studies.tuning.rungs import tune
from experiments.studies.tuning.table import write_table, write_winners
from experiments.studies.workers import work_with
from fl.config import Experiment
from fl.config.parsing import ConfigError
from fl.server.journal import Journal
from fl.simulation import run
from fl.simulation.study import Study, each, grid

ROOT = Path(fl.__file__).parents[1]
PAGE = ROOT / "docs" / "guide" / "running" / "tune.md"
TINY = {"network.kind": "ffnn", "network.depth": 3, "network.width": 4, "engine": "sequential"}
TINY |= {"partition.kind": "iid", "partition.clients": 4, "sampling.clients": 2, "rounds": 2}
here = partial(work_with, None, command="fednf tune", watch=lambda job, line: None)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    rng, path = np.random.default_rng(0), tmp_path_factory.mktemp("data") / "small.npz"
    y = np.arange(60) % 3
    x = (rng.normal(size=(60, 4, 4, 1)) + y[:, None, None, None]).astype(np.float32)
    np.savez(path, x_train=x, y_train=y, x_test=x[:12], y_test=y[:12])
    return str(path)


@pytest.fixture(scope="module")
def tuned(data, tmp_path_factory):
    """A plan with a schedule that depends on the number of rounds, its folder, and its races."""
    flat = {**TINY, "data.name": data, "data.layout": "NHWC", "data.validation": 0.2}
    base = Experiment.from_flat({**flat, "client.lr-schedule": "cosine"})
    rates = tuple({"client.lr": rate} for rate in (0.02, 0.1))
    plan, folder = Plan(base, ({"recipe": "swish"},), rates, (1, 2)), tmp_path_factory.mktemp("o")
    plan.begin(folder, "fednf tune")
    return plan, folder, tune(plan, folder, here)


def test_a_winner_s_run_is_the_one_that_its_knobs_give(tuned, tmp_path):
    plan, folder, (race,) = tuned
    ((name, experiment),) = plan.runs(race.contender, race.winner.knobs).values()
    assert experiment.rounds == 2
    expected = run(experiment, Journal(tmp_path / "run"))
    assert Journal(folder / name).result()["model_sha256"] == expected["model_sha256"]


def test_who_loses_stops_at_its_rung_and_could_go_on(tuned):
    plan, folder, (race,) = tuned
    (loser,) = [row for row in race.at(1) if not row.kept]
    ((name, _),) = plan.runs(race.contender, loser.knobs).values()
    assert [line["round"] for line in Journal(folder / name).rounds()] == [0, 1]
    assert Journal(folder / name).checkpoint().round == 1
    assert Journal(folder / name).result() is None


def test_contenders_may_differ_in_other_knobs(tuned, tmp_path):
    """As those of a study do: `partition.alpha` says nothing of even clients."""
    _, _, (race,) = tuned
    of_skew = replace(race, contender={"recipe": "swish", "partition.alpha": 1.0})
    path = write_table([race, of_skew], tmp_path)
    found = list(csv.DictReader(path.read_text().splitlines()))
    assert [row["partition.alpha"] for row in found] == [""] * 3 + ["1.0"] * 3
    assert {row["recipe"] for row in found} == {"swish"}


def test_another_plan_needs_another_folder(tuned):
    plan, folder, _ = tuned
    with pytest.raises(ConfigError, match=r"another tuning \(rungs differs\)"):
        Plan(plan.base, plan.contenders, plan.candidates, (2,)).begin(folder, "")


def study(**changes) -> Study:
    return Study(
        "mine", "Which?", grid(Experiment.from_flat({**TINY, "recipe": "swish", **changes}))
    )


def test_a_study_gets_each_contender_s_winner(tuned, tmp_path):
    plan, _, races = tuned
    winners = write_winners(plan, races, tmp_path, "fednf tune --over 'a b'")
    (found,) = study().tuned(winners).experiments
    assert found.client.lr == races[0].winner.knobs["client.lr"]
    assert found.replace({"client.lr": study().experiments[0].client.lr}) == study().experiments[0]
    for wrong, told in {
        "seed 9001": study(seed=9001),
        "recipe=relu|recipe=none": study(recipe="none"),
        "9001, on which": study(**{"seed.deal": 9001}),
    }.items():
        with pytest.raises(ConfigError, match=wrong):
            told.tuned(winners)
    about = Study("rates", "?", grid(study().experiments[0], each("client.lr", (0.1, 0.2))))
    with pytest.raises(ConfigError, match=r"is about client\.lr"):
        about.tuned(winners)


def test_what_is_no_file_of_winners_is_refused(tmp_path):
    (tmp_path / "some.toml").write_text("client.lr = 0.1\n")
    with pytest.raises(ConfigError, match="holds no winners"):
        study().tuned(tmp_path / "some.toml")


VALIDATION = ("--set", "data.validation=0.1")
LR = ("--over", "client.lr=0.1,0.2")
MU = ("--over", "strategy.mu=0.01,0.1")
OF_TWO = ("--contenders", "strategy.kind=fedprox,fednova")  # who both take what fedavg does not


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (VALIDATION, "--over says what is tuned"),
        (LR, "set data.validation"),
        ((*LR, *VALIDATION, "--set", "client.lr=0.1"), "client.lr is compared; leave it out"),
        ((*LR, *VALIDATION, "--set", "seed=1"), "seed: tuning has seeds of its own"),
        ((*LR, *VALIDATION, "--set", "rounds=8"), "rung 40 is beyond rounds=8"),
        ((*LR, *VALIDATION, "--rungs", "ten"), "--rungs ten: it should look like 10,20,40"),
        ((*LR, *VALIDATION, "--recipes", "zc-swsh"), "zc-swsh"),
        ((*VALIDATION, "--over", "client.clip=1,5"), "client.clip=1"),
        ((*VALIDATION, "--over", "client.lr=0.1:1:log"), "draw candidates with --random"),
        ((*LR, *VALIDATION, "--keep", "inf"), "keep 1/inf is no part"),
        (("answer-tuning", *LR, "--recipes", "none"), "--recipes: study answer-tuning has contend"),
        (("answer-tuning", *LR, "--rungs", "7"), "rung 7 is beyond rounds=6"),
        (("no-such-study", *LR), "no study no-such-study; known: demo"),
        ((*LR, *VALIDATION, "--scale", "full"), "--scale=full is of a study; name one"),
        ((*MU, *OF_TWO, *VALIDATION, "--set", "rounds=8"), "rung 40 is beyond rounds=8"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(fednf, tmp_path, words, told):
    answer = fednf("tune", *words, "--out", "out")
    assert answer.status == 2
    assert len(answer.err.splitlines()) == 1
    assert told in answer.err
    assert not (tmp_path / "out").exists()


BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```", re.M | re.S)


def test_the_page_s_count_of_rounds_is_what_halving_plays():
    assert "24 × 5 + 8 × 5 + 3 × 10 + 1 × 20 = 210" in PAGE.read_text(encoding="utf-8")
    live, rounds, before = 24, 0, 0
    for rung in (5, 10, 20, 40):
        rounds, before = rounds + live * (rung - before), rung
        live = -(-live // 3)
    assert rounds == 210


@pytest.mark.slow
def test_the_page_works_from_top_to_bottom(fednf, tmp_path, monkeypatch, capsys):
    in_process = lambda jobs, workers, command, watch: work_with(None, jobs, command, watch)  # noqa: E731
    monkeypatch.setattr(tune_cli, "work_through", in_process)
    monkeypatch.setattr("experiments.cli.study.work_through", in_process)
    monkeypatch.setattr("experiments.studies.workers.work_through", in_process)
    no_report = SimpleNamespace(write=lambda folder, **_: folder)
    monkeypatch.setattr("experiments.cli.study.load_plots", lambda: no_report)
    answers = []
    for kind, text in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        if kind == "bash":
            words = shlex.split(text.replace("\\\n", " "), comments=True)[1:]
            answers.append(fednf(*words))
            assert answers[-1].status == 0, (words, answers[-1].err)
        elif "STUDY" in text:
            (tmp_path / "skew.py").write_text(text)
        else:
            exec(compile(text, str(PAGE), "exec"), {"__name__": "__main__"})
            assert len(capsys.readouterr().out.splitlines()) == 2
    tuned, drawn, studied, each_tuned, each_studied = answers
    assert tuned.out.count("winner of recipe=") == 2
    assert drawn.out.count("winner of recipe=") == 1
    assert "4 of 4 runs" in studied.out
    assert each_tuned.out.count("winner of recipe=") == 4, "two recipes under two skews"
    assert "4 of 4 runs" in each_studied.out
    names = {path.name for path in (tmp_path / "runs" / "tune").iterdir()}
    assert {"tuning.csv", "winners.toml", "tuning.html", "tuning.json", "figures"} <= names
    assert "test_" not in (tmp_path / "runs" / "tune" / "tuning.csv").read_text()


@pytest.mark.slow
def test_killed_tuning_goes_on_to_the_same_bytes(data, tmp_path):
    """SIGKILL of all its processes at some moments; then other numbers of jobs."""
    flat = {**TINY, "rounds": 6, "data.name": data, "data.layout": "NHWC", "data.validation": 0.2}
    sets = [word for key, value in flat.items() for word in ("--set", f"{key}={value}")]
    words = ["tune", "--recipes", "swish", "--over", "client.lr=0.02,0.1", "--rungs", "2,4,6"]

    def start(folder: str, jobs: int) -> subprocess.Popen:
        line = [sys.executable, "-m", "experiments", *words, *sets, "--out", folder]
        quiet = {"stdout": subprocess.DEVNULL, "start_new_session": True}
        place = {"cwd": tmp_path, "env": {**os.environ, "PYTHONPATH": str(ROOT)}}
        return subprocess.Popen([*line, "--jobs", str(jobs)], **place, **quiet)

    def wait_for(folder: Path, runs: int) -> None:
        end = time.monotonic() + 60
        while len(list(folder.glob("*/rounds.jsonl"))) < runs and time.monotonic() < end:
            time.sleep(0.01)

    whole = start("whole", 2)
    killed = start("killed", 1)
    for runs in (1, 2):
        wait_for(tmp_path / "killed", runs)
        os.killpg(killed.pid, signal.SIGKILL)
        killed.wait()
        killed = start("killed", 1)
    assert (whole.wait(), killed.wait()) == (0, 0)
    for name in ("tuning.csv", "figures/response-recipe-swish-client.lr.png"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    models = [
        {
            path.parent.name: path.read_bytes()
            for path in (tmp_path / folder).glob("*/model.safetensors")
        }
        for folder in ("whole", "killed")
    ]
    assert models[0] == models[1]
    assert models[0]
