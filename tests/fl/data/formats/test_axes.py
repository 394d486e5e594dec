"""What the axes of arrays are: told by a layout, or by the shape where only one fits."""

from pathlib import Path

import numpy as np
import pytest

from fl import Experiment
from fl.config.parsing import ConfigError
from fl.data import load
from fl.data.dataset import Dataset as Data
from fl.data.formats import read
from fl.data.own import Dataset

LABELS = np.arange(8) % 4


def values(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    return np.random.default_rng(1).integers(256, size=(8, *shape)).astype(dtype)


def as_file(file: Path, x: np.ndarray) -> Path:
    np.savez(file, x_train=x, y_train=LABELS, x_test=x, y_test=LABELS)
    return file


def as_object(x: np.ndarray, layout: str | None = None) -> Data:
    return Dataset((x, LABELS), (x, LABELS), layout=layout)


TOLD = [
    ("u1", (28, 28), "NHW", "grey images of 28 × 28"),
    ("u1", (9, 128), "NHW", "grey images of 9 × 128"),
    ("f4", (20,), "NL", "1 channel of length 20"),
    ("f4", (1, 20), "NCL", "1 channel of length 20"),
    ("f4", (28, 1), "NLC", "1 channel of length 28"),
    ("f4", (128, 9), "NLC", "9 channels of length 128"),
    ("f4", (8, 9, 3), "NHWC", "images of 8 × 9 with 3 channels"),
    ("u1", (28, 28, 1), "NHWC", "grey images of 28 × 28"),
    ("u1", (28, 28, 4), "NHWC", "images of 28 × 28 with 4 channels"),
    ("u1", (1, 28, 28), "NCHW", "grey images of 28 × 28"),
    ("u1", (3, 32, 32), "NCHW", "images of 32 × 32 with 3 channels"),
    ("f4", (3, 64, 13), "NCHW", "images of 64 × 13 with 3 channels"),
    ("u1", (7, 8, 9), "NDHW", "volumes of 7 × 8 × 9"),
    ("u1", (28, 28, 28), "NDHW", "volumes of 28 × 28 × 28"),
    ("f4", (15, 24, 24), "NDHW", "volumes of 15 × 24 × 24"),
    ("u1", (1, 7, 8, 9), "NCDHW", "volumes of 7 × 8 × 9"),
    ("f4", (7, 8, 9, 1), "NDHWC", "volumes of 7 × 8 × 9"),
    ("f4", (7, 8, 9, 2), "NDHWC", "volumes of 7 × 8 × 9 with 2 channels"),
    ("f4", (2, 9, 8, 7), "NCDHW", "volumes of 9 × 8 × 7 with 2 channels"),
]
"""Arrays that can only be one thing: type, shape of an example, layout, and what is said."""
SEVERAL = [
    ("f4", (28, 28), "NHW|NLC|NCL"),
    ("f4", (9, 128), "NHW|NLC|NCL"),
    ("f4", (12, 4), "NHW|NLC|NCL"),
    ("f4", (2, 16, 16), "NCHW|NDHW"),
    ("u1", (28, 28, 2), "NHWC|NDHW"),
    ("f4", (13, 26, 26), "NCHW|NDHW"),
    ("f4", (26, 26, 13), "NHWC|NDHW"),
    ("u1", (3, 8, 3), "NCHW|NHWC"),
    ("u1", (3, 3, 3), "NCHW|NHWC"),
    ("u1", (1, 28, 3), "NCHW|NHWC"),
    ("u1", (3, 8, 8, 3), "NCDHW|NDHWC"),
    ("u1", (1, 8, 8, 1), "NCDHW|NDHWC"),
    ("u1", (8, 8, 8, 8), "NDHWC|NCDHW"),
    ("u1", (20,), "NL"),
]
"""Arrays that have to be asked about: type, shape of an example, and the layouts to give."""


def are(found: Data, x: np.ndarray, layout: str) -> bool:
    """Whether a data set holds an array's values, its channels first."""
    place = layout.find("C")
    expected = x[:, None] if place < 0 else np.moveaxis(x, place, 1)
    both = found.train.images.numpy(), found.test.images.numpy()
    return all(part.dtype == x.dtype and np.array_equal(part, expected) for part in both)


@pytest.mark.parametrize(("dtype", "shape", "layout", "words"), TOLD)
def test_a_shape_that_can_only_be_one_thing_is_read_and_said(tmp_path, dtype, shape, layout, words):
    x = values(shape, dtype)
    file = read(as_file(tmp_path / "f.npz", x))
    for found in (file, as_object(x)):
        assert are(found, x, layout)
        assert found.told()["examples"] == words
    assert f"npz, {layout}, " in file.source


@pytest.mark.parametrize(("dtype", "shape", "layouts"), SEVERAL)
def test_a_shape_that_may_be_several_is_asked_about(tmp_path, refusal, dtype, shape, layouts):
    x = values(shape, dtype)
    file = as_file(tmp_path / "f.npz", x)
    assert f"data.layout={layouts}" in refusal(file) + "|"
    with pytest.raises(ConfigError) as error:
        as_object(x)
    assert str(error.value).endswith(f" layout={layouts}")
    for layout in layouts.split("|"):
        assert are(read(file, layout=layout), x, layout)
        assert are(as_object(x, layout), x, layout)


def test_the_layout_is_a_knob_of_an_experiment(tmp_path):
    x = values((28, 28), "f4")
    flat = {"data.name": str(as_file(tmp_path / "f.npz", x)), "data.layout": "NCL"}
    assert are(load(Experiment.from_flat(flat)), x, "NCL")


def test_arrays_are_the_same_however_they_are_stored(tmp_path):
    x = values((8, 9, 3), "f4")
    for name, stored in {
        "columns first": np.asfortranarray(x),
        "backwards": np.ascontiguousarray(x[::-1])[::-1],
        "big-endian": x.astype(">f4"),
        "every second": np.repeat(x, 2, axis=2)[:, :, ::2],
    }.items():
        assert are(read(as_file(tmp_path / f"{name}.npz", stored)), x, "NHWC"), name
        assert are(as_object(stored), x, "NHWC"), name
    for wide in ("f2", "f8"):  # Python's are told of in the line about memory, and made float32
        assert are(as_object(x.astype(wide)), x, "NHWC")
    for whole in ("i8", "u2"):
        assert are(as_object(x.astype(whole)), x.astype("u1"), "NHWC")


@pytest.mark.parametrize("dtype", ["f2", "f8", "i2", "i8", "u2", "?", "c8", "S1", "U1", "M8[s]"])
def test_a_file_of_other_types_is_refused_and_never_rounded(tmp_path, refusal, dtype):
    x = (values((8, 9, 3), "u1") % 2).astype(dtype)
    said = refusal(as_file(tmp_path / "f.npz", x))
    assert f"values are {x.dtype}; save pixels as uint8" in said


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ("X_train Y_train X_test Y_test", "neither train_images nor x_train: found X_train, Y"),
        ("x_train Y_train x_test Y_test", "has no y_train: found x_train, Y_train"),
        ("arr_0 arr_1 arr_2 arr_3", "neither train_images nor x_train: found arr_0"),
        ("x_train y_train x_val y_val", "has no x_test: found x_train, y_train, x_val, y_val"),
        ("x_train y_train x_test y_test train_images", "both train_images and x_train"),
    ],
)
def test_arrays_by_other_names_are_named_and_not_guessed(tmp_path, refusal, names, said):
    x, file = values((8, 8), "u1"), tmp_path / "f.npz"
    np.savez(file, **{n: LABELS if "y" in n.lower()[:1] else x for n in names.split()})
    assert said in refusal(file)
