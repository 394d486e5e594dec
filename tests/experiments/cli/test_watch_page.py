"""What `docs/guide/running/watch.md` tells a reader to type works, in the order of the page."""

import json
import re
import shlex
from pathlib import Path

import pytest

import fl
from fl.server.watching.callback import Callback

PAGE = Path(fl.__file__).parent.parent / "docs" / "guide" / "running" / "watch.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)


@pytest.mark.slow
def test_the_page_works_from_top_to_bottom(fednf, tmp_path):
    (mine,) = blocks("python")
    (tmp_path / "my.py").write_text(mine)
    lines = "".join(blocks("bash")).replace("\\\n", " ").splitlines()
    answers = [fednf(*shlex.split(line, comments=True)[1:]) for line in lines]
    assert [answer.status for answer in answers] == [0] * 5, [answer.err for answer in answers]
    run, watched, once, as_json, _ = answers
    assert re.search(r"^engine \w+.*, 1 worker; .* of preparing, .* of training", run.out, re.M)
    assert watched.lines[1].split()[:3] == ["one", "done", "2/2"]
    assert once.lines == watched.lines
    assert json.loads(as_json.out)["states"] == {"done": 1}
    best = (tmp_path / "runs" / "two" / "best.txt").read_text()
    lines = (tmp_path / "runs" / "two" / "rounds.jsonl").read_text().splitlines()
    told = min((json.loads(line) for line in lines), key=lambda line: line["test_loss"])
    assert best == f"{told['test_loss']} in round {told['round']}\n"


def test_the_page_names_every_hook_and_every_tracker():
    text = PAGE.read_text(encoding="utf-8")
    hooks = [name for name, value in vars(Callback).items() if callable(value) and name[0] != "_"]
    assert len(hooks) == 5
    assert all(f"| `{hook}(" in text for hook in hooks)
    assert all(f"| `{name}` |" in text for name in ("tensorboard", "mlflow", "wandb"))
