"""Files that were read as something they are not; each is read right now, or refused."""

import io
import os
import struct
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from fl import Experiment
from fl.config.parsing import ConfigError
from fl.data import deal, load
from fl.data.formats import read


def as_idx(root: Path, x: np.ndarray) -> Path:
    for split in ("train", "t10k"):
        for what, array in (("images", x), ("labels", (np.arange(len(x)) % 4).astype("u1"))):
            head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
            file = root / f"{split}-{what}-idx{array.ndim}-ubyte"
            file.write_bytes(head + array.tobytes())
    return root


def as_parquet(root: Path, x: np.ndarray) -> Path:
    cells = [io.BytesIO() for _ in x]
    for cell, pixels in zip(cells, x, strict=True):
        Image.fromarray(pixels).save(cell, "PNG")
    table = pa.table({"image": [c.getvalue() for c in cells], "label": np.arange(len(x)) % 4})
    for split in ("train", "test"):
        pq.write_table(table, root / f"{split}.parquet")
    return root


def npz(file: Path, x: np.ndarray, y: np.ndarray | None = None) -> Path:
    y = np.arange(len(x)) % 4 if y is None else y
    np.savez(file, x_train=x, y_train=y, x_test=x, y_test=y)
    return file


def values(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    return np.random.default_rng(1).integers(256, size=(8, *shape)).astype(dtype)


def test_a_layout_that_does_not_fit_is_one_line(tmp_path):
    file = npz(tmp_path / "f.npz", values((28, 28), "f4"))
    with pytest.raises(ConfigError, match=r"names 4 axes, but .* is float32"):
        read(file, layout="NHWC")
    folder(tmp_path / "d", {})
    with pytest.raises(ConfigError, match=r"is for arrays in an \.npz file"):
        read(tmp_path / "d", layout="NHWC")


def test_a_layout_that_is_not_given_leaves_identities_as_they_were():
    plain, given = Experiment(), Experiment.from_flat({"data.layout": "NHW"})
    assert plain.identity != given.identity
    assert plain.identity == Experiment.from_flat({"data.layout": "auto"}).identity


def overwrite(file: Path, x: np.ndarray) -> None:
    """Write other values over a file, of the same size and time."""
    before = file.stat()
    npz(file, x)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_file_that_changed_is_read_again(tmp_path):
    one, two = values((8, 8), "u1"), 255 - values((8, 8), "u1")
    file = npz(tmp_path / "f.npz", one)
    knobs = Experiment.from_flat({"data.name": str(file)})
    before = load(knobs)
    assert load(knobs) is before, "nothing changed, so nothing is read"
    overwrite(file, two)
    assert np.array_equal(load(knobs).train.images[:, 0], two)
    assert np.array_equal(load(str(file)).train.images[:, 0], two)


def test_a_deal_is_of_what_the_file_holds_now(tmp_path):
    flat = {"partition.clients": 2, "sampling.clients": 2, "partition.min-size": 1}
    file = npz(tmp_path / "f.npz", values((8, 8), "u1"))
    knobs = Experiment.from_flat({"data.name": str(file), **flat})
    assert sum(map(len, deal(knobs))) == 8
    npz(file, np.concatenate([values((8, 8), "u1")] * 2))
    load(knobs)
    assert sum(map(len, deal(knobs))) == 16


def test_a_folder_that_changed_is_read_again(tmp_path):
    folder(tmp_path, {})
    knobs = Experiment.from_flat({"data.name": str(tmp_path)})
    assert len(load(knobs).train) == 2
    (tmp_path / "train/ant/new.png").write_bytes((tmp_path / "train/ant/x.png").read_bytes())
    assert len(load(knobs).train) == 3
    (tmp_path / "train/ant/x.png").unlink()
    assert len(load(knobs).train) == 2
    (tmp_path / "train/bee/x.png").rename(tmp_path / "train/bee/z.png")
    Image.new("L", (1, 1), 9).save(tmp_path / "train/bee/x.png")
    assert load(knobs).train.images.flatten().tolist() == [0, 9, 0]


def test_a_file_that_another_takes_the_place_of_is_read_again(tmp_path, monkeypatch):
    one, two = values((8, 8), "u1"), 255 - values((8, 8), "u1")
    file, other, link = (tmp_path / name for name in ("f.npz", "g.npz", "l.npz"))

    def held(name: str) -> np.ndarray:
        return load(Experiment.from_flat({"data.name": name})).train.images[:, 0].numpy()

    npz(file, one)
    npz(other, two)
    link.symlink_to(file)
    assert np.array_equal(held(str(link)), one)
    link.unlink()
    link.symlink_to(other)
    assert np.array_equal(held(str(link)), two), "the link leads elsewhere"
    assert np.array_equal(held(str(file)), one)
    os.utime(other, ns=(file.stat().st_atime_ns, file.stat().st_mtime_ns))
    other.replace(file)
    assert np.array_equal(held(str(file)), two), "renamed, with the same size and time"
    file.unlink()
    with pytest.raises(ConfigError, match="does not exist"):
        held(str(file))
    for name, x in (("here", one), ("there", two)):
        (tmp_path / name).mkdir()
        npz(tmp_path / name / "f.npz", x)
        monkeypatch.chdir(tmp_path / name)
        assert np.array_equal(held("f.npz"), x), "another folder's file of this name"


def test_every_file_of_a_layout_is_looked_at_again(tmp_path):
    x = values((4, 5), "u1")
    for write, name in ((as_idx, "train-labels-idx1-ubyte"), (as_parquet, "test.parquet")):
        folder_of = tmp_path / name
        folder_of.mkdir()
        knobs = Experiment.from_flat({"data.name": str(write(folder_of, x))})
        before = load(knobs)
        write(folder_of, 255 - x)
        assert (load(knobs).test.images == 255 - before.test.images).all(), name
        (folder_of / name).unlink()
        with pytest.raises(ConfigError, match=r"has no (train-labels|test split)"):
            load(knobs)


def folder(root: Path, files: dict[str, bytes | Image.Image]) -> Path:
    """Write train and test of ant and bee, and other files in the place of some of them."""
    plain = {f"{s}/{c}/x.png": Image.new("L", (1, 1)) for s in ("train", "test") for c in CLASSES}
    for name, content in {**plain, **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            (root / name).write_bytes(content)
        else:
            content.save(root / name)
    return root


CLASSES = ("ant", "bee")


def test_one_class_is_refused_with_the_level_of_its_folder(tmp_path, refusal):
    for split, wnid in (("train", "n01443537"), ("train", "n01629819"), ("val", "n01443537")):
        folder_of = tmp_path / split / wnid / "images"
        folder_of.mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(folder_of / "x.JPEG")
    said = refusal(tmp_path)
    assert "all images are of the class 'images'" in said
    assert "folders such as 'n01443537' are the classes, move the files up" in said


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (np.zeros(8, int), "all examples are of the class '0'"),
        (np.ones(8, int), "labels include 1 but not 0"),
        (np.arange(8) % 2 - 1, "labels include -1"),
        (np.arange(8) % 2 * 2, "labels include 2 but not 1"),
        ((np.arange(8) % 2).astype(float), "labels are float64"),
        (np.eye(8, dtype=int), "one-hot"),
        (np.array(["cat", "dog"] * 4), "labels are <U3"),
    ],
)
def test_labels_that_are_no_classes_are_one_line(tmp_path, refusal, labels, said):
    assert said in refusal(npz(tmp_path / "f.npz", values((8, 8), "u1"), labels))


def test_an_empty_class_and_one_that_is_only_in_the_test_are_refused(tmp_path, refusal):
    folder(tmp_path, {})
    (tmp_path / "train/cow").mkdir()
    assert "train/cow: a class without images" in refusal(tmp_path)
    (tmp_path / "train/cow").rename(tmp_path / "test/cow")
    assert read(tmp_path).classes == CLASSES
    Image.new("L", (1, 1)).save(tmp_path / "test/cow/x.png")
    assert "the training split has no class 'cow'" in refusal(tmp_path)


def test_a_device_may_lack_classes_that_data_classes_names(tmp_path):
    folder(tmp_path, {})
    (tmp_path / "train/bee/x.png").unlink()
    (tmp_path / "train/bee").rmdir()
    found = read(tmp_path, "cow, bee ,ant")
    assert found.classes == ("cow", "bee", "ant")
    assert (found.train.labels.tolist(), found.test.labels.tolist()) == ([2], [2, 1])


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        ("ant,bee,ant", "'ant' is there twice"),
        ("ant,bee,", "name 3 is empty"),
        ("ant, ,bee", "name 2 is empty"),
        ("1", "expected 2 to 100,000"),
        ("1000000", "expected 2 to 100,000"),
        ("9" * 5000, "expected 2 to 100,000"),
        (",".join(map(str, range(100_001))), "100001 classes, expected 2 to 100,000"),
        ("2.0", "1 classes, expected 2"),
        ("\u0662", "1 classes, expected 2"),
        ("ant;bee", "1 classes, expected 2"),
        ("ANT,bee", "class 'ant' is not among data.classes=ANT,bee"),
        ("2", "class 'ant' is not among data.classes=0,1"),
        ("ant", "1 classes, expected 2"),
    ],
)
def test_a_list_of_classes_that_can_t_be_is_one_line(tmp_path, classes, said):
    with pytest.raises(ConfigError, match=said) as error:
        read(folder(tmp_path, {}), classes)
    assert len(str(error.value)) < 300


def test_classes_that_would_be_told_alike_are_refused(tmp_path, refusal):
    names = {"blanks": (" ant", "ant"), "escapes": ("a\x1b", "a\\x1b"), "lines": ("a\nb", "a b")}
    for kind, (one, other) in names.items():
        folder(tmp_path / kind, {f"train/{c}/x.png": Image.new("L", (1, 1)) for c in (one, other)})
        assert "two of its classes are called" in refusal(tmp_path / kind)
    folder(tmp_path / "case", {"train/Ant/x.png": Image.new("L", (1, 1))})
    assert read(tmp_path / "case").classes == ("Ant", "ant", "bee"), "they are told apart"


def test_folders_that_are_near_the_layout_are_named(tmp_path, refusal):
    for name, (files, said) in {
        "flat": (["train/x.png", "test/x.png"], "expected CLASS/file or DOMAIN/CLASS/file"),
        "TRAIN": (["TRAIN/ant/x.png", "test/ant/x.png"], "has no train split: found test"),
        "wrapped": (["mine/train/ant/x.png", "mine/test/ant/x.png"], "has no layout that is known"),
        "untested": (["train/ant/x.png", "train/bee/x.png"], "has no test split"),
        "mixed": (["train/a/ant/x.png", "train/a/bee/x.png", "test/ant/x.png"], "lies 2 levels"),
        "a note": (["train/ant/x.png", "train/ant/a\nb.txt", "test/ant/x.png"], "a\\nb.txt is no"),
    }.items():
        for file in files:
            (tmp_path / name / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / file).write_bytes(b"")
        assert said in refusal(tmp_path / name)
