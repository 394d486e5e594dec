"""What `docs/guide/running/continue.md` tells a reader to type works, in the order of the page."""

import json
import re
import shlex
from pathlib import Path

import pytest

import fl
from fl.server.journal import Journal

PAGE = Path(fl.__file__).parent.parent / "docs" / "guide" / "running" / "continue.md"
BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```", re.M | re.S)


@pytest.mark.slow
def test_the_page_works_from_top_to_bottom(fednf, tmp_path):
    commands = 0
    for kind, text in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        if kind == "python":
            exec(compile(text, str(PAGE), "exec"), {})
            continue
        for line in text.replace("\\\n", " ").splitlines():
            program, *words = shlex.split(line, comments=True)
            done = fednf(*words, *(["--quiet"] if words[0] == "run" else []))
            assert (program, done.status) == ("fednf", 0), (line, done.err)
            commands += 1
    assert commands == 8
    one, two = (Journal(tmp_path / "runs" / name) for name in ("one", "two"))
    assert [run["rounds"] for run in (one.result(), two.result())] == [4, 2]
    assert Journal(tmp_path / "runs" / "patient").result()["rounds"] == 8
    assert two.rounds()[0]["test_loss"] == one.rounds()[-1]["test_loss"]
    assert len((tmp_path / "predictions.csv").read_text().splitlines()) == 1 + 2 * 3
    told = json.loads(done.lines[-1])
    assert [row["file"] for row in told["predictions"]] == ["images.npy[0]", "images.npy[1]"]
