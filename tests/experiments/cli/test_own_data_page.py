"""What `docs/guide/own/data.md` tells a reader to write and to type works, from top to bottom."""

import re
import shlex
from pathlib import Path

import numpy as np

import fl
from fl.server.journal import Journal

PAGE = Path(fl.__file__).parent.parent / "docs" / "guide" / "own" / "data.md"
BLOCK = re.compile(r"^```(bash|python|toml)\n(.*?)^```", re.M | re.S)


def test_the_page_works_from_top_to_bottom(fednf, tmp_path):
    ran: list[str] = []
    names: dict = {}
    for kind, text in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        if named := re.match(r"# (\w+\.\w+)\n", text):
            (tmp_path / named[1]).write_text(text)
        elif kind == "python":
            exec(compile(text, str(PAGE), "exec"), names)
        else:
            for line in text.splitlines():
                program, *words = shlex.split(line)
                done = fednf(*words)
                assert (program, done.status) == ("fednf", 0), (line, done.err)
                ran.append(words[0] if words[0] == "run" else words[1])
    assert ran == ["show", "run", "show", "deal"]
    assert names["data"].form == ((1, 8, 8), 3)
    waves = Journal(tmp_path / "runs" / "waves")
    assert waves.header()["knobs"]["data.name"] == "waves.py:dataset"
    assert waves.result()["final_accuracy"] > 0.5
    assert names["result"]["rounds"] == 1
    assert (tmp_path / "runs" / "pairs" / "deal.png").is_file()
    with np.load(tmp_path / "runs" / "devices" / "device-2" / "shard.npz") as shard:
        assert shard["train_images"].shape[1:] == (1, 50)
