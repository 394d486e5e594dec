"""What files of packages become, on small files of the same layout with known contents."""

import gzip
import io
import json
import os
import pickle
import struct

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fl.data.names import EMOJI
from fl.data.sets import images, signals, volumes
from fl.data.sets.images import shuffled, to_split


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@given(st.integers(1, 50), st.booleans())
def test_shuffling_keeps_every_example_with_its_label_and_domain(size, with_domains):
    numbers = np.arange(size)
    part = to_split(numbers[:, None, None], numbers, numbers if with_domains else None)
    train, test = shuffled((part, part), "x")
    for split in (train, test):
        assert split.labels.sort().values.tolist() == numbers.tolist()
        assert torch.equal(split.images[:, 0, 0], split.labels)
        if with_domains:
            assert torch.equal(split.domains, split.labels)
    assert torch.equal(shuffled((part, part), "x")[0].labels, train.labels)


def test_splits_differ_from_set_to_set_and_train_from_test():
    part = to_split(np.zeros((50, 1, 1)), np.arange(50))
    (a, b), (c, _) = shuffled((part, part), "x"), shuffled((part, part), "y")
    assert len({tuple(split.labels.tolist()) for split in (a, b, c)}) == 3


def test_cifar10_is_read_row_by_row_and_colour_by_colour():
    rng = np.random.default_rng(1)
    sheets = {
        name: rng.integers(0, 256, (4, 1024, 3), dtype=np.uint8)
        for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")
    }
    files = {f"package/{name}.png": png(pixels) for name, pixels in sheets.items()}
    files["package/train_lables.json"] = json.dumps([i % 10 for i in range(20)]).encode()
    files["package/test_lables.json"] = b"[9, 8, 7, 6]"
    train, test = images.cifar10(files)
    assert train.images.shape == (20, 3, 32, 32)
    assert test.labels.tolist() == [9, 8, 7, 6]
    row, column, channel = 3, 17, 2
    assert train.images[5, channel, row, column] == sheets["data_batch_2"][1, row * 32 + column, 2]


def test_fashion_mnist_is_read_from_idx():
    pixels = np.random.default_rng(1).integers(0, 256, (3, 1, 28, 28), dtype=np.uint8)
    image = gzip.compress(struct.pack(">IIII", 2051, 3, 28, 28) + pixels.tobytes())
    label = gzip.compress(struct.pack(">II", 2049, 3) + bytes([4, 0, 9]))
    folder = "usr/share/datasets/fashion-mnist"
    files = {
        f"{folder}/{name}-{kind}-ubyte.gz": raw
        for name in ("train", "t10k")
        for kind, raw in (("images-idx3", image), ("labels-idx1", label))
    }
    for split in images.fashion_mnist(files):
        assert np.array_equal(split.images, pixels)
        assert split.labels.tolist() == [4, 0, 9]


def test_mnist_10k_gives_bytes_back_and_tests_on_the_end_of_each_class():
    values = np.arange(256, dtype=np.uint8)
    files = {}
    for digit in range(10):
        pixels = np.full((160, 784), digit, np.uint8)
        pixels[:, :256] = values
        pixels[:, 783] = np.arange(160)  # its place in the file
        data = np.round(pixels / 255, 3).ravel().tolist()
        files[f"package/src/digits/{digit}.json"] = json.dumps({"data": data}).encode()
    train, test = images.mnist_10k(files)
    assert (len(train), len(test)) == (100, 1500)
    assert torch.equal(train.images.flatten(1)[0, :256], torch.from_numpy(values))
    for split, places in ((train, range(10)), (test, range(10, 160))):
        flat = split.images.flatten(1)
        assert torch.equal(flat[:, 400].long(), split.labels)
        assert flat[split.labels == 3, 783].sort().values.tolist() == list(places)


def test_digits_are_split_class_by_class_and_keep_their_scale():
    rng = np.random.default_rng(1)
    table = rng.integers(0, 17, (100, 65))
    table[:, 64] = np.arange(100) % 10
    table[:, 0] = np.arange(100) // 10
    text = "\n".join(",".join(map(str, row)) for row in table)
    train, test = images.digits(
        {"sklearn/datasets/data/digits.csv.gz": gzip.compress(text.encode())}
    )
    assert train.labels.bincount().tolist() == [8] * 10
    assert test.labels.bincount().tolist() == [2] * 10
    assert int(train.images.max()) == 16
    rows = torch.cat([train.images, test.images]).flatten(1)
    assert sorted(map(tuple, rows.tolist())) == sorted(map(tuple, table[:, :64].tolist()))


def emoji_files() -> dict[str, bytes]:
    """Ten symbols a category, whose colour is their number, and three that have to be left out."""
    symbols, files = [], {}
    for number in range(93):
        name = f"{number}.png"
        symbols.append(
            {
                "image": name,
                "category": "Component" if number == 90 else EMOJI[number // 10 % 9],
                "has_img_google": number != 91,
                "has_img_twitter": number != 92,
            }
        )
        for place, vendor in enumerate(("google", "twitter")):
            pixels = np.full((64, 64, 4), 255, np.uint8)
            pixels[..., 0], pixels[..., 1] = number, place
            pixels[:32, :, 3] = 0  # the upper half is clear
            files[f"package/img/{vendor}/64/{name}"] = png(pixels)
    return {**files, "package/emoji.json": json.dumps(symbols).encode()}


def test_both_vendors_share_the_unseen_symbols():
    train, test = images.emoji(emoji_files())
    seen = {
        (name, vendor): set(split.images[split.domains == vendor][:, 0, 31, 0].tolist())
        for name, split in (("train", train), ("test", test))
        for vendor in (0, 1)
    }
    assert seen["test", 0] == seen["test", 1]
    assert seen["train", 0] == seen["train", 1] == set(range(90)) - seen["test", 0]
    assert test.labels.bincount().tolist() == [4] * 9
    for split in (train, test):
        assert torch.equal(split.images[:, 0, 31, 0] // 10, split.labels.to(torch.uint8))
        assert torch.equal(split.images[:, 1, 31, 0], split.domains.to(torch.uint8))
        assert split.images[:, :, 0].eq(255).all(), "clear pixels are white"


def recordings(lengths: list[int]) -> dict:
    """Recordings whose first axis numbers every sample of all of them."""
    ends = np.cumsum(lengths)
    series = [
        np.arange(end - size, end, dtype=np.float64)[:, None] * np.ones(6)
        for size, end in zip(lengths, ends, strict=True)
    ]
    number = np.arange(len(lengths))
    return {"X": series, "y": number % 7, "subject": number % 10 + 1}


def npy(held: object, protocol: int = 2) -> dict[str, bytes]:
    """Write an object as NumPy 1 did, whose module had another name."""
    buffer = io.BytesIO()
    header = {"descr": "|O", "fortran_order": False, "shape": ()}
    np.lib.format.write_array_header_1_0(buffer, header)
    raw = pickle.dumps(held, protocol).replace(b"cnumpy._core.multi", b"cnumpy.core.multi")
    return {"seglearn/data/watch_dataset.npy": buffer.getvalue() + raw}


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(500, 800), min_size=2, max_size=12))
def test_windows_lie_in_one_recording_and_no_sample_is_in_both_splits(lengths):
    train, test = signals.watch(npy(np.array(recordings(lengths), dtype=object)))
    assert train.images.shape[1:] == test.images.shape[1:] == (6, 100)
    samples = [set(split.images[:, 0].long().flatten().tolist()) for split in (train, test)]
    assert not samples[0] & samples[1]
    owner = np.repeat(np.arange(len(lengths)), lengths)
    for split in (train, test):
        places = split.images[:, 0].long()
        assert places.diff().eq(1).all()
        owners = owner[places.numpy()]
        assert (owners == owners[:, :1]).all()
        assert (owners[:, 0] % 7 == split.labels.numpy()).all()
        assert (owners[:, 0] % 10 == split.domains.numpy()).all()


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_that_calls_anything_else_is_refused_before_it_does(tmp_path, protocol):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    with pytest.raises(pickle.UnpicklingError, match=r"refused: posix\.mkdir"):
        signals.watch(npy({"X": Evil()}, protocol))
    assert not (tmp_path / "executed").exists()


def nifti(values: np.ndarray, kind: int = 2) -> bytes:
    header = bytearray(352)
    struct.pack_into("<4h", header, 40, 3, *values.shape)
    struct.pack_into("<h", header, 70, kind)
    struct.pack_into("<f", header, 108, 352)
    header[344:348] = b"n+1\0"
    return gzip.compress(bytes(header) + values.tobytes(order="F"), 1)


def brain_files(kind: int = 2) -> dict[str, bytes]:
    """A brain whose left half is below 128, and lobes in seven buffers along the second axis."""
    shape = (121, 150, 60)
    rng = np.random.default_rng(1)
    brain = rng.integers(0, 128, shape, dtype=np.uint8)
    brain[60:] += 128
    regions = np.broadcast_to((np.arange(150) * 7 // 150)[:, None], shape).astype(np.uint8) + 1
    lines = [f"{n + 1} Region_L {code}001" for n, code in enumerate((2, 4, 5, 6, 7, 8, 9))]
    folder = "usr/share/mricron/templates"
    return {
        f"{folder}/ch2.nii.gz": nifti(brain, kind),
        f"{folder}/aal.nii.gz": nifti(regions),
        f"{folder}/aal.nii.txt": "\n".join([*lines, ""]).encode(),
    }


def test_the_hemispheres_of_the_brain_never_meet_and_lobes_are_even():
    train, test = volumes.brain3d(brain_files())
    for split, per_lobe in ((train, 300), (test, 100)):
        assert split.images.shape[1:] == (1, 24, 24, 24)
        assert split.labels.bincount().tolist() == [per_lobe] * 7
    assert int(train.images.max()) < 128 <= int(test.images.min())


def test_a_volume_that_is_not_of_bytes_is_refused():
    with pytest.raises(ValueError, match="found 3-D, type 16"):
        volumes.brain3d(brain_files(kind=16))
