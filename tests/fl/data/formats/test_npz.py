from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fl.data.formats import read

STYLES = {"MedMNIST": ("{}_images", "{}_labels"), "Keras": ("x_{}", "y_{}")}
SHAPES = [
    (1, 28, 28), (3, 5, 4), (4, 5, 4), (1, 5, 4), (1, 6, 7, 8), (3, 6, 7, 8), (1, 2, 3, 3),
]  # fmt: skip


def stored(images: np.ndarray, last: bool) -> np.ndarray:
    """Put channels last, or leave the axis of a single channel out."""
    return np.moveaxis(images, 1, -1) if last else images[:, 0]


def write(file: Path, data, style="MedMNIST", last=True, **more) -> Path:
    images, labels = STYLES[style]
    arrays = {
        images.format("train"): stored(data.train_images, last),
        labels.format("train"): data.train_labels[:, None],
        images.format("test"): stored(data.test_images, last),
        labels.format("test"): data.test_labels[:, None],
    }
    np.savez_compressed(file, **{**arrays, **more})
    return file


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(SHAPES), st.sampled_from([*STYLES]), st.integers(0, 9), st.booleans())
def test_images_and_volumes_are_read_from_either_style(
    tmp_path_factory, examples, shape, style, n, bare
):
    data = examples(n, 2, shape)
    bare = bare and shape[0] == 1 and not (len(shape) == 4 and shape[-1] in (1, 3, 4))
    found = read(write(tmp_path_factory.mktemp("npz") / "a.npz", data, style, last=not bare))
    assert data.are(found)
    assert found.dims == len(shape) - 1
    assert found.source.startswith(f"{style}-style npz, ")


@pytest.mark.parametrize(("shape", "last"), [((1, 9), False), ((1, 9), True), ((6, 50), True)])
def test_float32_arrays_are_signals(tmp_path, examples, shape, last):
    data = examples(shape=shape, dtype=np.float32)
    found = read(write(tmp_path / "a.npz", data, "Keras", last))
    assert data.are(found)
    assert found.dims == 1


def test_medmnist_s_validation_split_is_left_alone(tmp_path, examples):
    data, other = examples(), examples(seed=1)
    val = {"val_images": stored(other.test_images, True), "val_labels": other.test_labels}
    assert data.are(read(write(tmp_path / "a.npz", data, **val)))


@pytest.mark.parametrize("key", ["{}_domains", "{}_client"])
@pytest.mark.parametrize(
    ("train", "test", "names"),
    [
        (["b", "a", "c"] * 3, ["c", "d", "a"], ("a", "b", "c", "d")),
        ([10, 9, 2] * 3, [2, 2, 10], ("2", "9", "10")),
        ([b"y", b"x", b"x"] * 3, [b"x"] * 3, ("x", "y")),
    ],
)
def test_owners_become_places_in_the_sorted_names(tmp_path, examples, key, train, test, names):
    owners = {key.format("train"): np.array(train), key.format("test"): np.array(test)}
    found = read(write(tmp_path / "a.npz", examples(), **owners))
    assert found.domains == names
    words = [x.decode() if isinstance(x, bytes) else str(x) for x in (*train, *test)]
    places = [*found.train.domains.tolist(), *found.test.domains.tolist()]
    assert [names[place] for place in places] == words


@pytest.mark.parametrize("split", ["train", "test"])
def test_owners_of_one_split_are_kept(tmp_path, examples, split):
    count = {"train": 9, "test": 3}[split]
    found = read(write(tmp_path / "a.npz", examples(), **{f"{split}_client": np.arange(count)}))
    splits = {"train": found.train, "test": found.test}
    assert splits.pop(split).domains.tolist() == [*range(count)]
    assert next(iter(splits.values())).domains is None


def expect(refusal, file: Path, said: str) -> None:
    assert str(file) in refusal(file)
    assert said in refusal(file)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"train_labels": np.zeros((9, 14), int)}, "several labels an example"),
        ({"train_labels": np.zeros((8, 1), int)}, "labels of shape (8,) for 9 examples"),
        ({"test_labels": np.zeros((3, 1))}, "labels are float64"),
        ({"test_labels": np.array([0, 1, 3])}, "label 3 of example 2 is outside 0 to 2"),
        ({"test_labels": np.array([0, -1, 2])}, "label -1 of example 1 is outside 0 to 2"),
        ({"train_labels": np.array([0, 1, 3] * 3)}, "labels include 3 but not 2"),
        ({"train_labels": np.array([1, 2, 3] * 3)}, "labels include 3 but not 0"),
        ({"train_labels": np.array([-1, 0, 1] * 3)}, "labels include -1"),
        ({"train_labels": np.array([0, 1, 2**63] * 3, np.uint64)}, "but not 2"),
        ({"test_images": np.zeros((3, 5, 5), np.uint8)}, "uint8 (1, 5, 5), but in"),
        ({"test_images": np.zeros((0, 4, 5), np.uint8)}, "the split has no examples"),
        ({"test_images": np.zeros((3, 0, 5), np.uint8)}, "hold nothing"),
        (
            {"test_images": np.zeros((3, 20), np.uint8)},
            "uint8 (3, 20), does not tell what its axes are",
        ),
        ({"test_images": np.zeros((3, 4, 5), np.int64)}, "values are int64; save pixels as uint8"),
        ({"test_images": np.zeros((3, 4, 5, 1))}, "save pixels as uint8"),
        ({"test_images": np.zeros((3, 4))}, "values are float64"),
        ({"test_images": np.zeros((3, 4), np.float32)}, "float32 (1, 4), but in"),
        ({"test_images": np.full((3, 4), np.nan, np.float32)}, "include NaN or infinity"),
        ({"test_images": np.full((3, 4), np.inf, np.float32)}, "include NaN or infinity"),
        ({"test_images": np.array([[np.inf, -np.inf]] * 3, np.float32)}, "include NaN or infinity"),
        ({"train_client": np.zeros(8)}, "domains of shape (8,) for 9 examples"),
        ({"train_client": np.array([None] * 9)}, "Object arrays cannot be loaded"),
        ({"train_images": np.array([None] * 9)}, "Object arrays cannot be loaded"),
    ],
)
def test_arrays_that_don_t_fit_are_one_line(tmp_path, examples, refusal, change, said):
    expect(refusal, write(tmp_path / "a.npz", examples(), last=False, **change), said)


def test_a_missing_array_is_named(tmp_path, examples, refusal):
    file, data = tmp_path / "a.npz", examples()
    np.savez(file, train_images=data.train_images[:, 0], train_labels=data.train_labels)
    expect(refusal, file, "has no test_images: found train_images, train_labels")
    np.savez(file, images=data.train_images)
    expect(refusal, file, "has neither train_images nor x_train: found images")
    with file.open("wb") as stream:
        np.save(stream, data.train_images)
    expect(refusal, file, "is a single array")


def test_a_truncated_archive_is_one_line(tmp_path, examples, refusal, damage):
    file = write(tmp_path / "a.npz", examples(40))
    damage(file, file)
    file.write_bytes(file.read_bytes()[:-30])
    expect(refusal, file, "can't read")
    file.write_bytes(b"")
    expect(refusal, file, "can't read")
