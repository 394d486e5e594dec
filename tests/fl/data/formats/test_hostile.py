"""Files that would hang, or take more memory than there is: one line, before they are read."""

import gzip
import io
import os
import pickle
import random
import socket
import struct
import zipfile
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from fl.data.formats import read
from tests.fl.config.bounded import bounded, cases

MEGABYTES = 500


@pytest.fixture(autouse=True)
def _little_memory(monkeypatch):
    monkeypatch.setenv("FEDNF_MEMORY", f"{MEGABYTES}M")


def png(array):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def pixels(*shape):
    return np.random.default_rng(1).integers(256, size=shape, dtype=np.uint8)


def as_folder(root):
    for split in ("train", "test"):
        for label in ("cat", "dog"):
            (root / split / label).mkdir(parents=True)
            for number in range(2):
                raw = png(pixels(4, 5))
                (root / split / label / f"{number}.png").write_bytes(raw)
    return root


def as_npz(root):
    labels = np.array([0, 1, 1])
    arrays = {f"{split}_labels": labels for split in ("train", "test")}
    arrays |= {f"{split}_images": pixels(3, 4, 5) for split in ("train", "test")}
    np.savez_compressed(root / "mine.npz", **arrays)
    return root / "mine.npz"


def as_idx(root, packed=True):
    for split in ("train", "t10k"):
        for what, array in (("images", pixels(3, 4, 5)), ("labels", np.array([0, 1, 1]))):
            head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
            raw = head + array.astype(np.uint8).tobytes()
            file = root / f"{split}-{what}-idx{array.ndim}-ubyte{'.gz' * packed}"
            file.write_bytes(gzip.compress(raw) if packed else raw)
    return root


def as_parquet(root):
    cells = [{"bytes": png(pixels(4, 5)), "path": None} for _ in range(3)]
    for split in ("train", "test"):
        pq.write_table(pa.table({"image": cells, "label": [0, 1, 1]}), root / f"{split}.parquet")
    return root


def as_cifar(root):
    for name in (*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"):
        held = {"data": pixels(3, 3072), "labels": [0, 1, 1]}
        (root / name).write_bytes(pickle.dumps(held, 2))
    (root / "batches.meta").write_bytes(pickle.dumps({"label_names": ["cat", "dog"]}, 2))
    return root


LAYOUTS = (as_folder, as_npz, as_idx, as_parquet, as_cifar)


def make_pipe(path):
    os.mkfifo(path)


def make_socket(path):
    here = os.getcwd()
    os.chdir(path.parent)  # a socket's path is short
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path.name)
    os.chdir(here)


ODD = {
    "a pipe": make_pipe,
    "a socket": make_socket,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "where nothing is": lambda path: path.symlink_to("nowhere"),
}


@pytest.mark.parametrize("kind", ODD)
def test_what_is_no_regular_file_is_refused_and_not_waited_for(tmp_path, kind):
    picture = as_folder(tmp_path / "set") / "train" / "cat" / "0.png"
    picture.unlink()
    ODD[kind](picture)
    said = bounded(lambda: read(tmp_path / "set"))
    assert str(picture) in said
    assert kind in said
    archive = tmp_path / "mine.npz"
    ODD[kind](archive)
    said = bounded(lambda: read(archive))
    assert said.startswith((f"can't read {archive}", f"{archive} does not exist"))


def test_links_are_followed_to_regular_files_and_not_round_in_circles(tmp_path):
    root, elsewhere = as_folder(tmp_path / "set"), tmp_path / "elsewhere"
    (root / "train" / "cat").rename(elsewhere)
    (root / "train" / "cat").symlink_to(elsewhere)
    assert bounded(lambda: read(root)) == "done"
    (elsewhere / "again").symlink_to(root / "train")
    assert "cat/again/" in bounded(lambda: read(root))
    (elsewhere / "again").unlink()
    for name in ("one", "two"):  # which double with every level
        (tmp_path / "set" / "train" / "empty").mkdir(exist_ok=True)
        (tmp_path / "set" / "train" / "empty" / name).symlink_to(".")
    assert "is there a link to a folder around it?" in bounded(lambda: read(root))


def bomb_of_idx(root):
    head = struct.pack(">HBB3I", 0, 8, 3, 1_000, 1_000, 1_000)
    with gzip.open(as_idx(root) / "train-images-idx3-ubyte.gz", "wb", compresslevel=1) as file:
        file.write(head)
        for _ in range(30):
            file.write(bytes(10**6))
    return "(1000, 1000, 1000) asks for 1 GB"


def bomb_of_npz(root):
    as_npz(root)
    head = io.BytesIO()
    shape = {"descr": "|u1", "fortran_order": False, "shape": (600, 1_000, 1_000)}
    np.lib.format.write_array_header_1_0(head, shape)
    with (
        zipfile.ZipFile(root / "mine.npz", "a", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("train_domains.npy", "w") as file,
    ):
        file.write(head.getvalue())
        for _ in range(600):
            file.write(bytes(10**6))
    return "its arrays, unpacked, are 600 MB"


def bomb_of_parquet(root):
    raw = png(np.zeros((1_000, 1_000), np.uint8))
    for split in ("train", "test"):
        cells = pa.array([{"bytes": raw, "path": None}] * 2_000)
        made = pa.table({"image": cells, "label": [0, 1] * 1_000})
        pq.write_table(made, root / f"{split}.parquet", compression="zstd")
    return "2,000 in all, of its size are 2 GB"


def bomb_of_a_picture(root):
    file = as_folder(root / "set") / "train" / "cat" / "0.png"
    head = struct.pack(">IIBBBBB", 12_000, 12_000, 8, 6, 0, 0, 0)
    raw = png(pixels(4, 5, 4))
    crc = struct.pack(">I", zlib.crc32(b"IHDR" + head))
    file.write_bytes(raw[:12] + b"IHDR" + head + crc + raw[33:])
    return "more than 89,478,485 pixels"


def a_sparse_file(root):
    file = as_folder(root / "set") / "train" / "cat" / "0.png"
    with file.open("wb") as made:
        made.truncate(10**12)
    return "0.png has 1 TB"


@pytest.mark.parametrize(
    ("bomb", "place"),
    [
        (bomb_of_idx, ""),
        pytest.param(bomb_of_npz, "mine.npz", marks=pytest.mark.slow),
        (bomb_of_parquet, ""),
        (bomb_of_a_picture, "set"),
        (a_sparse_file, "set"),
    ],
)
def test_a_small_file_that_becomes_large_is_refused_with_its_numbers(tmp_path, bomb, place):
    said = bomb(tmp_path)
    refused = bounded(lambda: read(tmp_path / place))
    assert said in refused
    assert "pixels" in said or "this machine has" in refused


@pytest.mark.slow
def test_a_long_value_that_every_row_repeats_is_taken_a_few_rows_at_a_time(tmp_path):
    as_parquet(tmp_path)
    raw = png(pixels(4, 5))
    raw = raw[:-12] + _text(2 * 10**7) + raw[-12:]  # 20 MB in each of 64 rows
    cells = pa.DictionaryArray.from_arrays(pa.array([0] * 64, pa.int32()), pa.array([raw]))
    made, file = pa.table({"image": cells, "label": [0, 1] * 32}), tmp_path / "train.parquet"
    pq.write_table(made, file, compression="zstd", store_schema=False)
    assert file.stat().st_size < 10**5
    assert bounded(lambda: read(tmp_path)) == "done"


def _text(length):
    body = b"prIV" + bytes(length)
    return struct.pack(">I", length) + body + struct.pack(">I", zlib.crc32(body))


def mutated(raw, draw):
    """Return a file's bytes with a few of them cut off, flipped, repeated, or made a lie."""
    place, length = draw.randrange(len(raw) + 1), draw.choice([1, 2, 4, 8, 64])
    match draw.randrange(6):
        case 0:
            return raw[:place]
        case 1:
            return raw[:place] + bytes(draw.randrange(256) for _ in range(length)) + raw[place:]
        case 2:
            return raw[:place] + raw[place + length :]
        case 3:
            lie = draw.choice([b"\xff" * length, b"\0" * length, b"\x7f" + b"\xff" * (length - 1)])
            return raw[:place] + lie + raw[place + length :]
        case 4:
            return raw + raw[place:]
        case _:
            flipped = bytearray(raw)
            for _ in range(draw.randrange(1, 9)):
                flipped[draw.randrange(len(raw))] ^= 1 << draw.randrange(8)
            return bytes(flipped)


@pytest.mark.parametrize("write", LAYOUTS)
def test_mutated_files_are_read_or_refused_in_one_line(tmp_path, write):
    path, draw = write(tmp_path), random.Random(write.__name__)
    files = sorted(file for file in tmp_path.rglob("*") if file.is_file())
    whole = {file: file.read_bytes() for file in files}
    faults = []
    for _ in range(cases(1_000, 8)):
        file = draw.choice(files)
        changed = mutated(whole[file], draw)
        file.write_bytes(changed)
        if (said := bounded(lambda: read(path))).startswith("FAULT"):
            faults.append((file.name, changed[:200], said))
        file.write_bytes(whole[file])
    assert not faults, faults[:3]
    assert bounded(lambda: read(path)) == "done"
