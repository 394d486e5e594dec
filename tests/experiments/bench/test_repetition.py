"""One contender, once: its summarize, and its processes."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments.bench.contenders.catalogue import CONTENDERS
from experiments.bench.jobs import Size, job
from experiments.bench.processes import ProcessTree
from experiments.bench.repetition import Failed, environment_of, repeat, summarize

LINES = [
    {"at": at, "images": images, "loss": 3.0 - at / 100, "accuracy": at / 200}
    for at, images in ((103.0, 40), (105.0, 30), (110.0, 50))
]

linux = pytest.mark.skipif(sys.platform != "linux", reason="families are known by /proc")


def test_the_first_round_is_start_up() -> None:
    found = summarize((100.0, 112.0), LINES, [40, 30, 50], 5)
    assert (found.startup, found.seconds, found.rounds, found.images) == (3.0, 7.0, 2, 80)
    assert found.images_per_second == pytest.approx(80 / 7)
    assert found.seconds_per_round == 3.5
    assert (found.whole, found.accuracies) == (12.0, (103 / 200, 105 / 200, 110 / 200))
    assert found.losses == (3.0 - 1.03, 3.0 - 1.05, 3.0 - 1.1)


@pytest.mark.parametrize(
    ("images", "reason"),
    [
        ([40, 30, 50, 40], "it finished 3 rounds of 4"),
        ([40, 31, 50], "it trained on 30 images in a round that has 31"),
    ],
)
def test_who_does_less_than_the_job_has_failed(images: list[int], reason: str) -> None:
    with pytest.raises(Failed) as error:
        summarize((100.0, 112.0), LINES, images, None)
    assert str(error.value) == reason


@linux
def test_a_family_is_found_after_its_head_left_it_and_ends() -> None:
    tree, other = ProcessTree("test-of-mine"), ProcessTree("test-of-others")
    environment = {**os.environ, **tree.mark}
    code = "import subprocess; subprocess.Popen(['sleep', '60'], start_new_session=True)"
    head = subprocess.Popen([sys.executable, "-c", code], env=environment)
    head.wait()
    (child,) = tree.members()
    assert b"sleep" in (child / "cmdline").read_bytes()
    assert other.members() == []
    assert (tree.memory() or 0) > 0
    assert other.memory() is None
    tree.end(head)
    assert tree.members() == []


@linux
def test_the_peak_is_of_all_processes_together() -> None:
    tree = ProcessTree("test-of-size")
    code = (
        "import subprocess, sys, time; "
        "hold = 'import time; x = bytearray(60_000_000); time.sleep(1.5)'; "
        "crew = [subprocess.Popen([sys.executable, '-c', hold]) for _ in range(2)]; "
        "[worker.wait() for worker in crew]"
    )
    process = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, **tree.mark})
    peak = tree.peak(process, 30)
    assert peak is not None
    assert 120_000_000 < peak < 300_000_000


@linux
def test_who_takes_too_long_is_given_up() -> None:
    tree = ProcessTree("test-of-patience")
    process = subprocess.Popen(["sleep", "60"], env={**os.environ, **tree.mark})
    with pytest.raises(subprocess.TimeoutExpired):
        tree.peak(process, 0.2)
    begun = time.monotonic()
    tree.end(process)
    assert process.returncode
    assert time.monotonic() - begun < 30


def test_only_cold_contenders_have_caches_of_their_own(tmp_path: Path) -> None:
    caches = ("XDG_CACHE_HOME", "TORCHINDUCTOR_CACHE_DIR")
    for name, row in CONTENDERS.items():
        found = environment_of(name, tmp_path)
        assert [key in found for key in caches] == [row.cold] * 2
        assert all(Path(found[key]).parent == tmp_path for key in caches if row.cold)
    cold, warm = CONTENDERS["vectorized-per-core-cold"], CONTENDERS["vectorized-per-core"]
    assert cold.cold
    assert (cold.module, cold.function, cold.knobs) == (warm.module, warm.function, warm.knobs)


@pytest.mark.slow
def test_a_cold_contender_neither_finds_nor_fills_the_user_s_cache(tmp_path, monkeypatch) -> None:
    knobs = job("cnn", 5, Size(clients=2, images=5, rounds=1), tmp_path)
    for name, filled in (("vectorized-per-core-cold", False), ("vectorized-per-core", True)):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / name))
        repeat(name, knobs, [10] * 2, watch_memory=False)
        assert any((tmp_path / name).rglob("native-*.so")) == filled


def test_a_contender_that_raises_has_failed_with_its_last_word(tmp_path: Path) -> None:
    knobs = job("cnn", 2, Size(clients=2, images=5, rounds=1), tmp_path)
    lost = knobs.replace({"data.name": str(tmp_path / "lost.npz")})
    with pytest.raises(Failed, match=r"lost.npz does not exist.*\(exit status 1\)"):
        repeat("loop", lost, [10] * 2, watch_memory=False)
