import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fl.data.formats import read


def idx(array: np.ndarray) -> bytes:
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return header + array.astype(np.uint8).tobytes()


def write(folder: Path, data, name="", test="t10k", dot="-", packed=True) -> Path:
    for split, images, labels in (
        ("train", data.train_images, data.train_labels),
        (test, data.test_images, data.test_labels),
    ):
        for what, array in (("images", images[:, 0]), ("labels", labels)):
            file = folder / f"{name}{split}-{what}{dot}idx{array.ndim}-ubyte"
            raw = idx(array)
            if packed:
                file.with_name(file.name + ".gz").write_bytes(gzip.compress(raw))
            else:
                file.write_bytes(raw)
    return folder


@settings(max_examples=20, deadline=None)
@given(
    st.integers(0, 40), st.integers(1, 9), st.integers(1, 30), st.integers(1, 30),
    st.integers(2, 5), st.booleans(), st.sampled_from("-."),
)  # fmt: skip
def test_what_is_written_is_read(tmp_path_factory, examples, n, test, h, w, k, packed, dot):
    data = examples(n, test, (1, h, w), k, seed=n)
    folder = write(tmp_path_factory.mktemp("idx"), data, dot=dot, packed=packed)
    found = read(folder)
    assert data.are(found)
    assert found.classes == tuple(str(i) for i in range(k))
    assert (found.name, found.domains) == (str(folder), ())
    assert found.source == f"IDX files, {folder}"
    assert found.licence == "unknown: your own files"


def test_emnist_is_turned_upright_and_its_letters_counted_from_zero(tmp_path, examples):
    data, turned = examples(shape=(1, 4, 5)), examples(shape=(1, 4, 5))
    turned.train_images = data.train_images.swapaxes(2, 3)
    turned.test_images = data.test_images.swapaxes(2, 3)
    write(tmp_path, turned, "emnist-balanced-", "test")
    assert data.are(read(tmp_path))
    turned.train_labels, turned.test_labels = data.train_labels + 1, data.test_labels + 1
    write(tmp_path, turned, "emnist-letters-", "test")
    assert data.are(read(tmp_path / "emnist-letters-train-images-idx3-ubyte.gz"))


def test_two_sets_in_a_folder_have_to_be_told_apart(tmp_path, examples, refusal):
    write(tmp_path, examples(), "emnist-balanced-", "test")
    write(tmp_path, examples(), "emnist-letters-", "test")
    assert "holds 2 sets; give the path of one's train-images" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda raw: b"\0\0\x0d\x03" + raw[4:], "magic number 00000d03, expected 00000803"),
        (lambda raw: b"\0\0\x08\x01" + raw[4:], "magic number 00000801, expected 00000803"),
        (lambda raw: raw[:-1], "has 179"),
        (lambda raw: raw + b"\0", "has more"),
        (lambda raw: raw[:7], "cut off within its header"),
        (lambda raw: b"", "magic number missing"),
        (lambda raw: raw[:4] + b"\xff" * 12 + raw[16:], "this machine has"),
    ],
)
@pytest.mark.parametrize("packed", [True, False])
def test_a_damaged_file_is_one_line(tmp_path, examples, refusal, change, said, packed):
    write(tmp_path, examples(), packed=packed)
    (file,) = tmp_path.glob("train-images*")
    raw = change(gzip.decompress(file.read_bytes()) if packed else file.read_bytes())
    file.write_bytes(gzip.compress(raw) if packed else raw)
    assert str(file) in refusal(tmp_path)
    assert said in refusal(tmp_path)


def test_a_damaged_gzip_is_one_line(tmp_path, examples, refusal, damage):
    write(tmp_path, examples(40))
    file = tmp_path / "train-images-idx3-ubyte.gz"
    damage(file, tmp_path)
    file.write_bytes(file.read_bytes()[:-12])
    assert f"can't read {file}: Compressed file ended" in refusal(tmp_path)


def test_a_missing_file_is_named(tmp_path, examples, refusal):
    write(tmp_path, examples())
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    assert "has no t10k-labels or test-labels-idx1-ubyte, plain or .gz" in refusal(tmp_path)
    (tmp_path / "t10k-images-idx3-ubyte.gz").unlink()
    assert "has no t10k-images or test-images-idx3-ubyte" in refusal(tmp_path)
