"""What others say reaches a terminal as text: tested with a real pseudo-terminal."""

import os
import pty
import sys
import threading

import numpy as np
import pytest
from PIL import Image

from experiments.cli import main
from fl.data import load
from fl.server.journal import Journal

NASTY = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202e"
RAW = (b"\x1b]0;", b"\x07", b"\x1b[2J", b"\xc2\x9b", b"\xe2\x80\xae")
LOSS = f"""
import torch
import torch.nn.functional as F

raised = []


def loss(outputs, labels):
    if torch.is_grad_enabled() and not raised:
        raised.append(True)
        raise RuntimeError({NASTY!r} + "y" * 50_000)
    return F.cross_entropy(outputs, labels, reduction="none")
"""


@pytest.fixture
def terminal(monkeypatch):
    """Type a command in a pseudo-terminal; returns its status and every byte that reached it."""

    def command(*words: str) -> tuple[int, bytes]:
        ours, theirs = pty.openpty()
        heard = bytearray()

        def listen() -> None:
            try:
                while part := os.read(ours, 65536):
                    heard.extend(part)
            except OSError:  # the other end is closed
                return

        listener = threading.Thread(target=listen)
        listener.start()
        with open(theirs, "w", encoding="utf-8") as screen, monkeypatch.context() as patch:
            for name in ("stdout", "stderr"):
                patch.setattr(sys, name, screen)
            patch.setattr(sys, "argv", ["fednf", *words])
            with pytest.raises(SystemExit) as ended:
                main.main()
        listener.join(60)
        os.close(ours)
        return ended.value.code or 0, bytes(heard)

    return command


@pytest.fixture
def data(tmp_path):
    """Write a folder of pictures whose class names are commands to a terminal, or rich's markup."""
    rng = np.random.default_rng(1)
    for split in ("train", "test"):
        for name in (f"{NASTY}cat", "[red]", "\u200bdog"):
            folder = tmp_path / "pictures" / split / name
            folder.mkdir(parents=True)
            for number in range(6):
                pixels = rng.integers(0, 255, (8, 8), np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return tmp_path / "pictures"


def set_to(flat: dict) -> list[str]:
    return [word for key, value in flat.items() for word in ("--set", f"{key}={value}")]


def dealt(data) -> dict:
    return {
        "data.name": data, "partition.clients": 3, "sampling.clients": 3, "partition.kind": "iid"
    }  # fmt: skip


def clean(heard: bytes) -> str:
    assert not [raw for raw in RAW if raw in heard]
    return heard.decode()


def test_a_client_s_reason_reaches_terminal_and_journal_escaped_and_cut(
    terminal, data, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(LOSS)
    flat = {"task.loss": "mine.py:loss", "rounds": 1, "network.depth": 3, "network.width": 4}
    flat |= {**dealt(data), "engine": "sequential"}
    status, heard = terminal("run", "--out", "run", "--workers", "1", *set_to(flat))
    assert status == 0, heard
    text = clean(heard).replace("\r\n", "")
    assert "RuntimeError: \\x1b]0;owned\\x07\\x1b[2J\\x9b31m\\u202eyyyy" in text
    (refused,) = Journal(tmp_path / "run").rounds()[1]["refused"]
    assert refused["reason"].isprintable()
    assert len(refused["reason"]) < 1100
    assert all(path.stat().st_size < 20_000 for path in (tmp_path / "run").glob("*.jsonl"))


def test_class_names_reach_a_terminal_escaped_and_cut(terminal, data):
    status, heard = terminal("data", "show", *set_to(dealt(data)))
    assert status == 0, heard
    assert "[red]" in clean(heard)
    escaped = {"\\x1b]0;owned\\x07\\x1b[2J\\x9b31m\\u202ecat", "[red]", "\\u200bdog"}
    assert set(load(str(data)).classes) == escaped


def test_a_complaint_that_quotes_a_name_reaches_a_terminal_escaped(terminal):
    status, heard = terminal("run", "--set", f"data.name=/nowhere/{NASTY}", "--set", "rounds=1")
    assert status == 2
    assert "\\x1b]0;owned\\x07" in clean(heard)
