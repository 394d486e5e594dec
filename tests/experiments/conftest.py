import sys
from types import SimpleNamespace

import pytest

from experiments.cli import main


@pytest.fixture
def fednf(monkeypatch, capsys, tmp_path):
    """Type a command in an empty folder; returns its exit status, output and complaints."""
    monkeypatch.chdir(tmp_path)

    def command(*words: str) -> SimpleNamespace:
        monkeypatch.setattr(sys, "argv", ["fednf", *words])
        with pytest.raises(SystemExit) as ended:
            main.main()
        out, err = capsys.readouterr()
        status = ended.value.code or 0
        return SimpleNamespace(status=status, out=out, err=err, lines=out.splitlines())

    return command
