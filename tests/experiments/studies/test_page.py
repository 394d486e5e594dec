"""What `docs/guide/studies.md` tells a reader to type works, in the order of the page."""

import re
import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest

import fl
from experiments import report
from experiments.cli import study as study_cli
from experiments.studies.workers import work_with
from tests.experiments.report.test_ledger import written

PAGE = Path(fl.__file__).parents[1] / "docs" / "guide" / "studies.md"
BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```", re.M | re.S)


def write(out: Path, *, run_code: bool, **asked) -> Path:
    """Write the reports that `fednf report` asks for, and not those at the end of a study."""
    return out if run_code else report.write(out, **asked)


asked_for_only = SimpleNamespace(write=write, data_read=report.data_read)


@pytest.mark.slow
def test_the_page_works_from_top_to_bottom(fednf, tmp_path, monkeypatch, capsys):
    here = lambda jobs, workers, command, watch: work_with(None, jobs, command, watch)  # noqa: E731
    monkeypatch.setattr(study_cli, "work_through", here)  # without processes
    monkeypatch.setattr(study_cli, "load_plots", lambda: asked_for_only)
    answers = []
    for kind, text in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        if "STUDY" in text:
            (tmp_path / "sizes.py").write_text(text)
        elif kind == "python":
            exec(compile(text, str(PAGE), "exec"), {})
            printed = capsys.readouterr().out.splitlines()
        elif "sizes.py" in text:
            for line in text.splitlines():
                answers.append(fednf(*shlex.split(line, comments=True)[1:]))
                assert answers[-1].status == 0, (line, answers[-1].err)
    first, again, _, watched, _, other = answers
    assert "8 of 8 runs" in first.out
    assert "16 of 16 rounds were done before, 8 runs to the end" in again.out
    assert sum("done" in line.split() for line in watched.lines) == 8
    assert "8 of 8 runs are in the ledger runs/other/ledger" in other.out
    page = written(tmp_path / "runs" / "batches-of-one")["report.html"]
    assert written(tmp_path / "runs" / "again")["report.html"] == page
    assert b"Which recipe minds batches of one?" in page
    cells = [f"{recipe} {size}" for recipe in ("batchnorm", "zc-swish") for size in (1, 8)]
    assert [line.split(":")[0] for line in printed[:4]] == cells
    assert all(line.endswith("of 2 seeds") for line in printed[:4])
