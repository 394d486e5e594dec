"""What `docs/guide/own/add.md` adds to fednf can be added, and passes its tests."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import fl

ROOT = Path(fl.__file__).parents[1]
PAGE = (ROOT / "docs" / "guide" / "own" / "add.md").read_text(encoding="utf-8")
FILES = re.findall(r"^```python\n# (\S+)\n(.*?)^```", PAGE, re.M | re.S)
DIFFS = re.findall(r"^```diff\n(.*?)^```", PAGE, re.M | re.S)


def test_the_changes_still_fit():
    assert [name for name, _ in FILES] == [
        "strategies/rules/rfa.py",
        "tests/strategies/rules/test_rfa.py",
    ]
    assert len(DIFFS) == 2
    for diff in DIFFS:
        words = ["git", "apply", "--check", "-"]
        done = subprocess.run(words, cwd=ROOT, input=diff, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_copy_with_the_changes_passes_its_tests(tmp_path):
    ours = ["fl", "strategies", "partitions", "experiments", "tests"]
    for room in ours:
        without = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / room, tmp_path / room, ignore=without)
    for name in ("pyproject.toml", "constraints.txt", "fednf.py", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    for name, text in FILES:
        (tmp_path / name).write_text(text, encoding="utf-8")
    for diff in DIFFS:
        words = ["git", "apply", "-"]
        subprocess.run(words, cwd=tmp_path, input=diff, text=True, check=True)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"}

    def done(*words: str) -> str:
        command = [sys.executable, "-m", *words]
        ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    flags = ("-q", "-p", "no:cacheprovider")
    chosen = "rfa or median or mish or default or 300_lines or 12_entries or what_is_in_a_file"
    rooms = (
        "tests/strategies/rules/test_rfa.py",
        "tests/test_house.py",
        "tests/fl/nn/test_networks.py",
    )
    told = done("pytest", *flags, *rooms, "-k", chosen)
    assert int(re.findall(r"(\d+) passed", told)[0]) > 20
    done("ruff", "check", "strategies", "tests/strategies")
    done("ruff", "format", "--check", "strategies", "tests/strategies/rules/test_rfa.py")
