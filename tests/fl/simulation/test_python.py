"""Runs from Python: `fl.run`, `fl.results`, and a study of objects."""

import doctest
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import fl
from fl.simulation import python

TINY = {
    "rounds": 1,
    "partition": {"clients": 5},
    "sampling.clients": 2,
    "client.batch-size": 32,
    "network": {"depth": 3, "width": 4},
}


@pytest.mark.slow
def test_a_run_from_python_is_the_run_of_the_command_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = fl.run(TINY, out="one")
    again = fl.run(fl.Experiment.from_flat(python.flatten(TINY)), out=Path("two"), workers=2)
    assert first["model_sha256"] == again["model_sha256"]
    assert first["folder"] == "one"
    assert Path("two/result.json").is_file()
    assert fl.run(TINY, out="one") == first  # finished: nothing is trained again


def test_what_is_wrong_is_told_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(fl.ConfigError, match=r"unknown knob round; did you mean rounds\?"):
        fl.run({"round": 1})
    with pytest.raises(fl.ConfigError, match=r"seed=\[1\] is neither a number"):
        fl.run({"seed": [1]})
    assert list(tmp_path.iterdir()) == []


def test_results_are_rows_of_runs_rounds_and_clients(tmp_path):
    for seed in (1, 2):
        fl.run({**TINY, "seed": seed}, out=tmp_path / f"run-{seed}")
    rows = fl.results(tmp_path)
    assert [row["seed"] for row in rows] == [1, 2]
    assert all(row["finished"] and row["network.depth"] == 3 for row in rows)
    assert [row["round"] for row in rows.rounds()] == [0, 1, 0, 1]
    assert {row["folder"] for row in rows.clients()} == {row["folder"] for row in rows}
    header, *lines = rows.to_csv().splitlines()
    assert header.startswith("folder,finished,identity")
    assert len(lines) == 2
    with pytest.raises(fl.ConfigError, match="holds no run"):
        fl.results(tmp_path / "run-1" / "clients")


def test_rows_become_a_frame_where_pandas_is(tmp_path):
    pandas = pytest.importorskip("pandas")
    frame = python.Rows([{"a": 1}, {"a": 2, "b": 3.0}]).to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    assert frame["a"].tolist() == [1, 2]


def test_the_examples_in_docstrings_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tested = doctest.testmod(python)
    assert tested.attempted >= 6
    assert tested.failed == 0


def test_objects_of_a_module_are_its_names(tmp_path, monkeypatch):
    (tmp_path / "deals.py").write_text(
        "def one_each(labels, clients, rng):\n    return [[n] for n in range(clients)]\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    import deals  # pyrefly: ignore

    try:
        given = python.experiment_of({"partition": {"kind": deals.one_each}})
    finally:
        del sys.modules["deals"]
    assert given == fl.Experiment.from_flat({"partition.kind": "deals.py:one_each"})


@pytest.mark.slow
def test_a_program_that_calls_run_at_its_top_level_is_told_where_to_put_it(tmp_path):
    (tmp_path / "program.py").write_text(
        "import fl\nfrom torch import nn\n"
        "class Net(nn.Linear):\n    def __init__(self, shape, classes):\n"
        "        super().__init__(1, classes)\n"
        "fl.run({'network.kind': Net}, out='never')\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(fl.__file__).parents[1])}
    words = [sys.executable, "program.py"]
    run = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert run.returncode == 1
    assert "program.py calls fl.run while" in run.stderr
    assert not (tmp_path / "never").exists()


def test_the_example_in_the_readme_runs(tmp_path):
    text = (Path(fl.__file__).parents[1] / "README.md").read_text()
    (tmp_path / "readme.py").write_text(re.search(r"```python\n(.*?)```", text, re.S)[1])
    environment = {**os.environ, "PYTHONPATH": str(Path(fl.__file__).parents[1])}
    words = [sys.executable, "readme.py"]
    run = subprocess.run(
        words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert len(run.stdout.splitlines()) == 2
