"""What a killed process leaves is removed by the next, and what a living one makes stays."""

import os
import signal
import subprocess
import sys
import time

from fl.reproducibility import temporary
from fl.reproducibility.files import write_whole

KILLED = """
import os, signal, sys
from pathlib import Path
from fl.reproducibility import files, temporary

here = Path(sys.argv[1])
with temporary.temporary_folder(here, f"{temporary.MAKING}test-") as folder:
    (folder / "half").write_text("x")
    print(folder.name, flush=True)
    os.fsync = lambda handle: os.kill(os.getpid(), signal.SIGKILL) if sys.stdin.read() else None
    files.write_whole(here / "file", "new")
"""


def test_what_a_killed_process_leaves_is_removed_and_what_a_living_one_makes_stays(tmp_path):
    words = [sys.executable, "-c", KILLED, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        made = process.stdout.readline().strip()
        deadline = time.monotonic() + 60
        while not (parts := list(tmp_path.glob(".file-*.part"))) and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(0.05)  # it is at its write now, which waits for its input
        temporary.remove_leftovers(tmp_path)
        assert {path.name for path in tmp_path.iterdir()} == {made, parts[0].name}
        process.communicate("die")
    assert process.returncode == -signal.SIGKILL
    assert {path.name for path in tmp_path.iterdir()} == {made, parts[0].name}
    temporary.remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_writer_whose_file_was_taken_for_an_orphan_makes_another(tmp_path, monkeypatch):
    """Between its making and its lock somebody else may look."""
    lock, removed = temporary.fcntl.flock, []

    def look_first(handle, operation):
        if operation == temporary.fcntl.LOCK_EX and not removed:
            removed.extend(tmp_path.glob(".*"))
            temporary.remove_leftovers(tmp_path)
        return lock(handle, operation)

    monkeypatch.setattr(temporary.fcntl, "flock", look_first)
    write_whole(tmp_path / "file", "new")
    assert len(removed) == 1
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("file", "new")]
    removed.clear()
    with temporary.temporary_folder(tmp_path, f"{temporary.MAKING}x-") as folder:
        assert folder.is_dir()
        assert folder not in removed
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
