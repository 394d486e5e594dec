"""Files that were read as something they are not; each is read right now, or refused."""

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fl import Experiment
from fl.config.parsing import ConfigError
from fl.data import deal, load
from fl.data.formats import read


def npz(file: Path, x: np.ndarray, y: np.ndarray | None = None) -> Path:
    y = np.arange(len(x)) % 4 if y is None else y
    np.savez(file, x_train=x, y_train=y, x_test=x, y_test=y)
    return file


def values(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    return np.random.default_rng(1).integers(256, size=(8, *shape)).astype(dtype)


@pytest.mark.parametrize(
    ("shape", "dtype", "readings"),
    [
        ((28, 28), "f4", {"NHW": (1, 28, 28), "NLC": (28, 28), "NCL": (28, 28)}),
        ((9, 128), "f4", {"NLC": (128, 9), "NCL": (9, 128), "NHW": (1, 9, 128)}),
        ((3, 32, 32), "u1", {"NCHW": (3, 32, 32), "NDHW": (1, 3, 32, 32)}),
        ((1, 28, 28), "u1", {"NCHW": (1, 28, 28), "NDHW": (1, 1, 28, 28)}),
        ((2, 16, 16), "f4", {"NCHW": (2, 16, 16), "NDHW": (1, 2, 16, 16)}),
        ((3, 8, 3), "u1", {"NCHW": (3, 8, 3), "NHWC": (3, 3, 8)}),
        ((3, 8, 8, 3), "u1", {"NCDHW": (3, 8, 8, 3), "NDHWC": (3, 3, 8, 8)}),
    ],
)
def test_axes_that_may_be_several_are_asked_for(tmp_path, refusal, shape, dtype, readings):
    x = values(shape, dtype)
    file = npz(tmp_path / "f.npz", x)
    said = refusal(file)
    for layout, form in readings.items():
        assert layout in said.partition("data.layout=")[2].split("|")
        found = load(Experiment.from_flat({"data.name": str(file), "data.layout": layout}))
        assert found.form.shape == form
        there = layout.find("C")
        back = found.train.images.numpy()
        back = back[:, 0] if there < 0 else np.moveaxis(back, 1, there)
        assert np.array_equal(back, x)
        assert f"npz, {layout}, " in found.source


@pytest.mark.parametrize(
    ("shape", "dtype", "form", "words"),
    [
        ((28, 28), "u1", (1, 28, 28), "grey images of 28 × 28"),
        ((128, 9), "f4", (9, 128), "9 channels of length 128"),
        ((20,), "f4", (1, 20), "1 channel of length 20"),
        ((1, 20), "f4", (1, 20), "1 channel of length 20"),
        ((8, 9, 3), "f4", (3, 8, 9), "images of 8 × 9 with 3 channels"),
        ((7, 8, 9), "u1", (1, 7, 8, 9), "volumes of 7 × 8 × 9"),
        ((1, 7, 8, 9), "u1", (1, 7, 8, 9), "volumes of 7 × 8 × 9"),
    ],
)
def test_axes_that_can_only_be_one_thing_are_read_and_said(tmp_path, shape, dtype, form, words):
    found = read(npz(tmp_path / "f.npz", values(shape, dtype)))
    assert found.form.shape == form
    told = found.told()
    assert (told["examples"], told["shape"]) == (words, list(form))
    assert told["dtype"] == {"u1": "uint8", "f4": "float32"}[dtype]


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


def png(bits: int, colour: int, pixels: bytes, more: bytes = b"") -> bytes:
    """Make a PNG of one pixel."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", 1, 1, bits, colour, 0, 0, 0)
    body = chunk(b"IHDR", head) + more + chunk(b"IDAT", zlib.compress(b"\0" + pixels))
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")


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


@pytest.mark.parametrize("colour", [0, 2, 4, 6])
def test_sixteen_bits_are_never_cut_to_eight(tmp_path, refusal, colour):
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[colour]
    raw = png(16, colour, struct.pack(f">{channels}H", *[100] * channels))
    assert "16 bits a channel" in refusal(folder(tmp_path, {"train/ant/y.png": raw}))


def test_pictures_of_several_frames_and_other_models_of_colour_are_refused(tmp_path, refusal):
    frames = [Image.new("RGB", (4, 4), c) for c in ("red", "blue")]
    for kind in ("png", "webp"):
        file = tmp_path / kind / f"train/ant/y.{kind}"
        folder(tmp_path / kind, {})
        frames[0].save(file, save_all=True, append_images=frames[1:])
        assert "has 2 frames" in refusal(tmp_path / kind)
    cmyk = Image.new("CMYK", (4, 4))
    said = refusal(folder(tmp_path / "cmyk", {"train/ant/a.jpg": cmyk}))
    assert "has mode CMYK" in said
    said = refusal(folder(tmp_path / "tiff", {"train/ant/a.tif": Image.new("F", (4, 4))}))
    assert "is no image" in said


@pytest.mark.parametrize(
    ("raw", "pixel"),
    [
        (png(8, 0, b"\x07", b"\0\0\0\x02tRNS\0\x07" + struct.pack(">I", zlib.crc32(b"tRNS\0\x07"))),
         (7, 7, 7, 0)),
        (png(8, 2, b"\1\2\3", b"\0\0\0\x06tRNS\0\1\0\2\0\4"
             + struct.pack(">I", zlib.crc32(b"tRNS\0\1\0\2\0\4"))), (1, 2, 3, 255)),
        (png(8, 4, b"\x07\xff"), (7, 7, 7, 255)),
        (png(8, 4, b"\x07\x10"), (7, 7, 7, 16)),
        (png(8, 6, b"\1\2\3\xff"), (1, 2, 3, 255)),
    ],
    ids=["grey, hidden", "colour, declared", "grey+alpha, opaque", "grey+alpha", "RGBA, opaque"],
)  # fmt: skip
def test_what_declares_transparency_has_four_channels(tmp_path, raw, pixel):
    files = {f"{s}/{c}/x.png": raw for s in ("train", "test") for c in CLASSES}
    found = read(folder(tmp_path, files))
    assert tuple(found.train.images[0, :, 0, 0].tolist()) == pixel


def test_translucent_and_opaque_pictures_of_one_mode_go_together(tmp_path):
    files = {f"{s}/{c}/x.png": png(8, 4, b"\x07\xff") for s in ("train", "test") for c in CLASSES}
    found = read(folder(tmp_path, {**files, "train/ant/y.png": png(8, 4, b"\x09\x10")}))
    assert found.train.images[:, :, 0, 0].tolist() == [
        [7] * 3 + [255],
        [9] * 3 + [16],
        [7] * 3 + [255],
    ]


def test_a_rotation_tag_is_said(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    folder(tmp_path, {})
    Image.new("L", (1, 1)).save(tmp_path / "train/ant/y.jpg", exif=exif)
    assert "1 with a rotation tag that was not applied" in read(tmp_path).source


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
        ("ant", "1 classes, expected 2"),
    ],
)
def test_a_list_of_classes_that_can_t_be_is_one_line(tmp_path, classes, said):
    with pytest.raises(ConfigError, match=said) as error:
        read(folder(tmp_path, {}), classes)
    assert len(str(error.value)) < 300
