import io
import os
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fl.data.formats import read

CLASSES = ("ant", "bee", "cow")


def picture(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels[0] if len(pixels) == 1 else np.moveaxis(pixels, 0, -1))


def write(root: Path, data, test="test", ending="png", domains=None) -> Path:
    """Write images so that their order by path is that of the arrays, which are sorted for it."""
    for split, name in (("train", "train"), ("test", test)):
        images, labels = getattr(data, f"{split}_images"), getattr(data, f"{split}_labels")
        if domains is None:
            labels.sort()
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            above = [] if domains is None else [domains[number * len(domains) // len(images)]]
            file = root.joinpath(name, *above, CLASSES[label], f"{number:04}.{ending}")
            file.parent.mkdir(parents=True, exist_ok=True)
            picture(image).save(file, lossless=True) if ending == "webp" else picture(image).save(
                file
            )
    return root


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from([1, 3, 4]), st.integers(1, 9), st.integers(1, 9), st.integers(0, 5),
    st.sampled_from(["png", "bmp", "PNG"]), st.sampled_from(["test", "val", "validation"]),
)  # fmt: skip
def test_pixels_come_back_as_they_were(tmp_path_factory, examples, c, h, w, n, ending, test):
    data = examples(n, 2, (c, h, w))
    ending = "png" if c == 4 else ending
    found = read(write(tmp_path_factory.mktemp("folder"), data, test, ending))
    assert data.are(found)
    assert found.classes == CLASSES
    assert ("tested on" in found.source) == (test != "test")


def test_webp_and_jpeg_are_read(tmp_path, examples):
    data = examples(shape=(3, 8, 8))
    assert data.are(read(write(tmp_path / "webp", data, ending="webp")))
    found = read(write(tmp_path / "jpeg", data, ending="jpeg"))
    with Image.open(next((tmp_path / "jpeg/train/ant").iterdir())) as first:
        assert np.array_equal(found.train.images[0].permute(1, 2, 0), np.asarray(first))


def test_an_outer_folder_is_an_owner(tmp_path, examples):
    data = examples(9, 4)
    # So that the order by path is that of the arrays.
    data.train_labels = np.array([0] * 3 + [1] * 3 + [0] * 3 + [1] * 3)
    data.test_labels = np.array([0, 1, 0, 1])
    found = read(write(tmp_path, data, domains=["apple", "google"]))
    assert data.are(found)
    assert (found.domains, found.classes) == (("apple", "google"), ("ant", "bee"))
    assert found.train.domains.tolist() == [0] * 6 + [1] * 6
    assert found.test.domains.tolist() == [0, 0, 1, 1]
    assert "by domain and class" in found.source


def test_a_test_split_may_lack_classes_and_hidden_files_are_passed_over(tmp_path, examples):
    data = examples()
    data.test_labels[:] = 1
    write(tmp_path, data)
    (tmp_path / "train/ant/.DS_Store").write_bytes(b"x")
    (tmp_path / "train/.ipynb_checkpoints").mkdir()
    (tmp_path / "train/.ipynb_checkpoints/x.png").write_bytes(b"x")
    assert data.are(read(tmp_path))


def grey(mode: str) -> tuple[Image.Image, np.ndarray]:
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    if mode == "1":
        return Image.fromarray(ramp > 99), ((ramp > 99) * 255)[None]
    image = Image.fromarray(ramp)
    image.putalpha(255)
    return image, np.stack([ramp, ramp, ramp, np.full_like(ramp, 255)])


def colour(alpha: int | None) -> tuple[Image.Image, np.ndarray]:
    """Make an image with a palette of 16 colours, one of them perhaps see-through."""
    palette = np.random.default_rng(1).integers(256, size=(16, 3), dtype=np.uint8)
    places = np.arange(256, dtype=np.uint8).reshape(16, 16) % 16
    image = Image.fromarray(places)
    image.putpalette(palette.tobytes())
    pixels = np.moveaxis(palette[places], -1, 0)
    if alpha is not None:
        image.info["transparency"] = bytes([255] * 3 + [alpha] + [255] * 12)
        pixels = np.concatenate([pixels, np.where(places == 3, alpha, 255)[None]])
    return image, pixels


@pytest.mark.parametrize(
    ("image", "pixels"),
    [grey("1"), grey("LA"), colour(None), colour(255), colour(7)],
    ids=["one bit", "grey, opaque", "palette", "palette, opaque", "palette, see-through"],
)
def test_other_modes_become_grey_or_colour_without_loss(tmp_path, image, pixels):
    for split, name in product(("train", "test"), "ab"):
        (tmp_path / split / name).mkdir(parents=True)
        image.save(tmp_path / split / name / "x.png")
    with Image.open(tmp_path / "train/a/x.png") as saved:
        assert saved.mode == image.mode
    assert np.array_equal(read(tmp_path).train.images[0], pixels)


def saved(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "png")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"no image", "it is none of PNG, JPEG"),
        (b"", "it is none of PNG, JPEG"),
        (saved(Image.new("L", (5, 4)))[:50], "can't read"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 5 4\n", "it is none of PNG, JPEG"),
        (
            saved(Image.new("L", (5, 5))),
            "holds grey images of 5 × 5, those before it grey images of 4 × 5",
        ),
        (saved(Image.new("RGB", (5, 4))), "holds images of 4 × 5 with 3 channels, those before it"),
        (saved(Image.new("I;16", (5, 4))), "has 16 bits a channel"),
    ],
)
def test_a_damaged_or_odd_image_is_named(tmp_path, examples, refusal, raw, said):
    file = write(tmp_path, examples()) / "train/cow/zz.png"
    file.write_bytes(raw)
    assert str(file) in refusal(tmp_path)
    assert said in refusal(tmp_path)


def test_any_damage_to_a_png_is_one_line(tmp_path, examples, damage):
    write(tmp_path, examples(shape=(3, 20, 20)))
    damage(next((tmp_path / "train/ant").iterdir()), tmp_path)


def test_folders_that_don_t_fit_are_one_line(tmp_path, examples, refusal):
    write(tmp_path, examples())
    (tmp_path / "test/dog").mkdir()
    picture(examples().test_images[0]).save(tmp_path / "test/dog/x.png")
    assert refusal(tmp_path).endswith("test/dog/x.png: the training split has no class 'dog'")
    (tmp_path / "test/dog/x.png").rename(tmp_path / "train/ant/x.gif")
    assert "train/ant/x.gif is no image: expected .png" in refusal(tmp_path)
    (tmp_path / "train/ant/x.gif").rename(tmp_path / "train/x.png")
    assert "train/x.png: expected CLASS/file or DOMAIN/CLASS/file" in refusal(tmp_path)
    (tmp_path / "train/ant/deep").mkdir()
    (tmp_path / "train/x.png").rename(tmp_path / "train/ant/deep/x.png")
    assert "ant/deep/x.png lies 3 levels below train, but the first" in refusal(tmp_path)


def test_a_missing_or_empty_split_is_one_line(tmp_path, examples, refusal):
    write(tmp_path, examples())
    (tmp_path / "test").rename(tmp_path / "elsewhere")
    assert "has no test split: expected one of test, validation" in refusal(tmp_path)
    (tmp_path / "test/ant").mkdir(parents=True)
    assert "test: the split has no examples" in refusal(tmp_path)
    (tmp_path / "train").rename(tmp_path / "training")
    assert "has no train split: found test" in refusal(tmp_path)


def test_links_are_followed_and_circles_refused(tmp_path, examples, refusal):
    write(tmp_path, examples())
    (tmp_path / "train/bee").rename(tmp_path / "elsewhere")
    (tmp_path / "train/bee").symlink_to(tmp_path / "elsewhere")
    assert read(tmp_path).classes == CLASSES
    (tmp_path / "train/bee").unlink()
    (tmp_path / "train/loop").symlink_to(tmp_path / "train")
    assert "expected CLASS/file or DOMAIN/CLASS/file" in refusal(tmp_path)


def test_a_folder_that_may_not_be_read_is_not_passed_over(tmp_path, examples, refusal, monkeypatch):
    write(tmp_path, examples())
    listed = os.scandir

    def scandir(path: str):
        if path.endswith("bee"):
            raise PermissionError(13, "Permission denied", path)
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert refusal(tmp_path) == f"can't read {tmp_path / 'train'}: Permission denied"


def test_a_missing_pillow_is_one_line(tmp_path, examples, refusal, monkeypatch):
    write(tmp_path, examples())
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    line = refusal(tmp_path)
    assert line.startswith("reading this needs PIL.Image (import of PIL")
    assert line.endswith('install fednf with its extra "data", see README')
