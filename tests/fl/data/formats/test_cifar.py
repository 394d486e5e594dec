import pickle
import struct
from pathlib import Path

import numpy as np
import pytest

from fl.data.formats import read

BATCHES = [f"data_batch_{number}" for number in range(1, 6)]
ARRAY = (  # protocol 0; what is left open is the byte order
    b"(dS'data'\ncnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
    b"(I1\n(I1\nI1\ntcnumpy\ndtype\n(S'u1'\nI0\nI1\ntR(I3\nS'%s'\ntbI00\nS'x'\ntbs."
)
NAMES = ["cat", "dog", "ship"]


def python2(held: dict[str, object]) -> bytes:
    """Pickle a dictionary in protocol 2 as Python 2 did: text as byte strings, arrays by name."""

    def whole(number: int) -> bytes:
        return b"J" + struct.pack("<i", number)

    def some(value: object) -> bytes:
        match value:
            case bytes() if len(value) < 256:
                return b"U" + bytes([len(value)]) + value
            case bytes():
                return b"T" + struct.pack("<i", len(value)) + value
            case str():
                return some(value.encode())
            case list():
                return b"](" + b"".join(map(some, value)) + b"e"
            case np.ndarray():
                made = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n"
                made += whole(0) + b"\x85" + some(b"b") + b"\x87R(" + whole(1)
                made += b"(" + b"".join(map(whole, value.shape)) + b"t"
                made += b"cnumpy\ndtype\n" + some(b"u1") + whole(0) + whole(1) + b"\x87R("
                made += whole(3) + some(b"|") + b"NNN" + whole(-1) + whole(-1) + whole(0) + b"tb"
                return made + b"\x89" + some(value.tobytes()) + b"tb"
            case _:
                return whole(value)

    return b"\x80\x02}(" + b"".join(some(x) for pair in held.items() for x in pair) + b"u."


def protocol(number: int):
    return lambda held: pickle.dumps(held, number)


def ten(data):
    """Return the name, images and labels of each batch of CIFAR-10."""
    images, labels = (np.array_split(x, 5) for x in (data.train_images, data.train_labels))
    yield from zip(BATCHES, images, labels, strict=True)
    yield "test_batch", data.test_images, data.test_labels


def write_10(folder: Path, data, dump=python2) -> Path:
    for name, images, labels in ten(data):
        held = {"data": images.reshape(len(images), -1), "labels": labels.tolist()}
        (folder / name).write_bytes(dump({"batch_label": name, **held}))
    (folder / "batches.meta").write_bytes(dump({"label_names": NAMES}))
    return folder


def write_100(folder: Path, data, dump=python2) -> Path:
    for name, images, labels in (
        ("train", data.train_images, data.train_labels),
        ("test", data.test_images, data.test_labels),
    ):
        held = {"data": images.reshape(len(images), -1), "fine_labels": labels.tolist()}
        (folder / name).write_bytes(dump({**held, "coarse_labels": [7] * len(labels)}))
    (folder / "meta").write_bytes(dump({"fine_label_names": NAMES, "coarse_label_names": ["x"]}))
    return folder


def records(images: np.ndarray, *labels: np.ndarray) -> bytes:
    columns = [label.astype(np.uint8)[:, None] for label in labels]
    return np.concatenate([*columns, images.reshape(len(images), -1)], axis=1).tobytes()


def write_10_binary(folder: Path, data) -> Path:
    for name, images, labels in ten(data):
        (folder / f"{name}.bin").write_bytes(records(images, labels))
    (folder / "batches.meta.txt").write_text("cat\ndog\nship\n\n")
    return folder


def write_100_binary(folder: Path, data) -> Path:
    for name, images, labels in (
        ("train", data.train_images, data.train_labels),
        ("test", data.test_images, data.test_labels),
    ):
        (folder / f"{name}.bin").write_bytes(records(images, labels * 0 + 19, labels))
    (folder / "fine_label_names.txt").write_text("cat\ndog\nship\n")
    return folder


@pytest.fixture
def data(examples):
    return examples(9, 4, (3, 32, 32))


def test_the_python_2_pickles_of_these_tests_are_pickles():
    held = {"data": np.arange(300, dtype=np.uint8).reshape(2, 150), "labels": [1, 2], "x": "y"}
    found = pickle.loads(python2(held), encoding="bytes")
    assert np.array_equal(found[b"data"], held["data"])
    assert (found[b"labels"], found[b"x"]) == ([1, 2], b"y")


@pytest.mark.parametrize("write", [write_10, write_100])
@pytest.mark.parametrize("dump", [python2, *map(protocol, (0, 1, 2, 4, 5))])
def test_python_batches_are_read_whoever_pickled_them(tmp_path, data, write, dump):
    found = read(write(tmp_path, data, dump))
    assert data.are(found)
    assert found.classes == ("cat", "dog", "ship")


@pytest.mark.parametrize("write", [write_10_binary, write_100_binary])
def test_binary_batches_are_read(tmp_path, data, write):
    found = read(write(tmp_path, data))
    assert data.are(found)
    assert found.classes == ("cat", "dog", "ship")
    next(tmp_path.glob("*.txt")).unlink()
    assert read(tmp_path).classes == ("0", "1", "2")


@pytest.mark.parametrize("number", [2, 4, 5])
def test_arrays_in_any_byte_order_and_layout_are_read(tmp_path, data, number):
    def dump(held: dict[str, object]) -> bytes:
        if "labels" in held:
            held["labels"] = np.array(held["labels"], ">i8")
            held["data"] = np.asfortranarray(held["data"])
        return pickle.dumps(held, number)

    assert data.are(read(write_10(tmp_path, data, dump)))


class Payload:
    """Unpickled, it creates a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("number", [0, 1, 2, 4, 5])
@pytest.mark.parametrize("name", ["data_batch_3", "test_batch", "batches.meta"])
def test_a_malicious_pickle_is_refused_and_not_executed(tmp_path, data, refusal, number, name):
    mark, file = tmp_path / "mark", write_10(tmp_path, data) / name
    raw = pickle.dumps({"labels": [0], "data": Payload(mark)}, number)
    pickle.loads(raw)
    assert mark.exists(), "the payload works"
    mark.unlink()
    file.write_bytes(raw)
    assert refusal(tmp_path).startswith(f"{file} asks for ")
    assert "nothing was executed" in refusal(tmp_path)
    assert not mark.exists()


@pytest.mark.parametrize(
    "raw",
    [
        b"cos\nsystem\n(S'touch mark'\ntR.",
        b"(S'touch mark'\nios\nsystem\n.",
        b"\x80\x04\x8c\x05numpy\x8c\x10ndarray.__init__\x93.",
        b"cnumpy\nload\n(S'x'\ntR.",
        b"c__builtin__\neval\n(S'1'\ntR.",
    ],
)
def test_no_other_name_is_known(tmp_path, data, refusal, raw, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (write_10(tmp_path, data) / "data_batch_1").write_bytes(raw)
    assert "nothing was executed" in refusal(tmp_path)
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"cnumpy\ndtype\n(S'O8'\nI0\nI1\ntR.", "holds a _Dtype, expected a dictionary"),
        (pickle.dumps([1]), "holds a list, expected a dictionary"),
        (pickle.dumps({"data": np.zeros((1, 3072)), "labels": [0]}), "array of <f8"),
        (pickle.dumps({"data": np.array([[None]]), "labels": [0]}), "array of |O"),
        (pickle.dumps({"data": np.zeros((1, 12), np.uint8), "labels": [0]}), "uint8 (1, 12)"),
        (pickle.dumps({"data": np.zeros((2, 3072), np.uint8), "labels": [0]}), "for 2 images"),
        (pickle.dumps({"data": np.zeros((1, 3072), np.uint8)}), "labels of shape ()"),
        (pickle.dumps({"data": np.zeros((1, 3072), np.uint8), "labels": ["a"]}), "whole numbers"),
        (ARRAY % b"O,", "an array of O,u1, expected whole numbers"),
        (ARRAY % b"|", "data are uint8 (1, 1), expected uint8 (n, 3072)"),
        (b"cnumpy\ndtype\n(lb.", "can't read"),  # state for the class, not for an object of it
        (b"", "Ran out of input"),
    ],
)
def test_other_contents_are_one_line(tmp_path, data, refusal, raw, said):
    file = write_10(tmp_path, data) / "data_batch_1"
    file.write_bytes(raw)
    assert str(file) in refusal(tmp_path)
    assert said in refusal(tmp_path)


def test_damaged_pickles_are_one_line(tmp_path, data, damage):
    write_100(tmp_path, data)
    damage(tmp_path / "train", tmp_path)


def test_a_batch_that_is_missing_or_cut_off_is_named(tmp_path, data, refusal):
    write_10_binary(tmp_path, data)
    file = tmp_path / "data_batch_5.bin"
    file.write_bytes(file.read_bytes()[:-1])
    assert f"{file}: " in refusal(tmp_path)
    assert "no whole number of records of 3073 bytes" in refusal(tmp_path)
    file.unlink()
    assert refusal(tmp_path) == f"can't read {file}: No such file or directory"
    write_10_binary(tmp_path, data)
    (tmp_path / "test_batch.bin").unlink()
    assert refusal(tmp_path).startswith(f"can't read {tmp_path / 'test_batch.bin'}")


def test_a_label_without_a_name_is_refused(tmp_path, data, refusal):
    data.test_labels[1] = 3
    said = "test_batch.bin: label 3 of example 1 is outside 0 to 2"
    assert said in refusal(write_10_binary(tmp_path, data))
