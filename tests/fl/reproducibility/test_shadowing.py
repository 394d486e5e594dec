"""A user's folder may have the name of one of our packages: programs still find ours, and tell."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import fl

ROOT = Path(fl.__file__).parent.parent
WORKS = "import fl, partitions; print(callable(partitions.dirichlet))"


def program(folder: Path, text: str, *paths: Path) -> subprocess.CompletedProcess:
    """Run a program that lies in a folder, with ours behind everything else."""
    (folder / "program.py").write_text(text)
    path = os.pathsep.join(map(str, (*paths, ROOT)))
    environment = {**os.environ, "PYTHONPATH": path}
    words = [sys.executable, "program.py"]
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.fixture
def project(tmp_path):
    """Make a project that has packages of its own with the names of ours."""
    for name in ("strategies", "partitions", "experiments"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("MINE = True\n")
    return tmp_path


def test_ours_are_found_and_one_line_tells_of_each_folder(project):
    done = program(project, f"import fl\n{WORKS}")
    assert (done.returncode, done.stdout) == (0, "True\n")
    told = [line for line in done.stderr.splitlines() if "UserWarning" in line]
    assert len(told) == 2  # `fl` does not import our experiments
    for line, name in zip(told, ("strategies", "partitions"), strict=True):
        assert line.startswith(f"{project / 'program.py'}:1: UserWarning: {project / name} has")
        assert f"fednf's package {name}" in line


def test_a_folder_that_python_does_not_import_from_is_not_told_of(tmp_path):
    (tmp_path / "strategies").mkdir()  # without __init__.py it hides nothing
    done = program(tmp_path, WORKS)
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")


def test_ours_by_another_path_are_ours(tmp_path):
    (tmp_path / "link").symlink_to(ROOT)
    done = program(tmp_path, WORKS, tmp_path / "link")
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")


def test_a_folder_that_was_imported_before_is_refused(project):
    done = program(project, "import strategies\nimport fl")
    assert done.returncode == 1
    line = done.stderr.splitlines()[-1]
    assert line.startswith(f"ImportError: {project / 'strategies'} was imported before fl")


def test_the_user_s_own_experiments_stay_theirs(project):
    done = program(project, "import fl, experiments; print(experiments.MINE)")
    assert (done.returncode, done.stdout) == (0, "True\n")


def test_the_command_line_works_there(project):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([".", str(ROOT)])}
    words = [sys.executable, "-m", "fednf", "data", "list"]
    done = subprocess.run(words, cwd=project, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "fashion-mnist-small" in done.stdout


def test_the_check_costs_less_than_a_millisecond():
    code = "import fl, timeit; from fl.reproducibility import shadowing; "
    code += "print(min(timeit.repeat(shadowing.check, number=1, repeat=20)))"
    done = subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True)
    assert float(done) < 1e-3
