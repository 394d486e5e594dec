"""What `docs/guide/running/debug.md` says of mistakes is so, in the order of the page."""

import re
import shlex
import sys
from pathlib import Path

import pytest

import fl
from experiments.cli import main

PAGE = (Path(fl.__file__).parents[1] / "docs" / "guide" / "running" / "debug.md").read_text("utf-8")
PYTHON = re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)
CONSOLE = "".join(re.findall(r"^```console\n(.*?)^```", PAGE, re.M | re.S))
TYPED = [part.partition("\n")[::2] for part in re.split(r"^\$ ", CONSOLE, flags=re.M)[1:]]


def test_the_page_works_from_top_to_bottom(fednf, tmp_path, monkeypatch):
    buggy, reading = PYTHON
    (tmp_path / "buggy.py").write_text(buggy)
    assert [len(told.splitlines()) for _, told in TYPED] == [1, 1, 1, 0, 1]
    seen, expected = [], []
    for command, told in TYPED:
        words = shlex.split(command)[1:]
        if "--debug" in words:
            monkeypatch.setattr(sys, "argv", ["fednf", *words])
            with pytest.raises(KeyError) as raised:
                main.main()
            assert f"KeyError: {raised.value}" == told.strip()
            assert raised.traceback[-1].name == "correct"
            (tmp_path / "buggy.py").write_text(buggy.replace("drfit", "drift"))
            continue
        done = fednf(*words)
        last = done.err.splitlines()[-1] + "\n" if told else ""
        seen.append((last.replace(f"{tmp_path}/", ""), bool(done.status)))
        expected.append((told, bool(told)))
    assert seen == expected
    assert (tmp_path / "runs/one/errors/round-1-client-5.txt").is_file()
    exec(reading, {})
