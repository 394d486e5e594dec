"""A data set from arrays: what is taken as it is, what is asked for, and what is refused."""

import doctest

import numpy as np
import pytest
import torch

from fl.config.parsing import ConfigError
from fl.data import dataset
from fl.data.own import Dataset, arrays, inputs

RNG = np.random.default_rng(1)
PIXELS = RNG.integers(0, 256, (12, 3, 8, 9), np.uint8)
SIGNALS = RNG.normal(size=(12, 2, 30))
LABELS = np.arange(12) % 3


def both(inputs, labels=LABELS, **options):
    return Dataset((inputs, labels), (inputs, labels), **options)


def test_bytes_stay_and_share_their_memory():
    data = both(PIXELS)
    assert isinstance(data, dataset.Dataset)
    assert data.train.images.data_ptr() == PIXELS.ctypes.data
    assert (data.form, data.classes) == (((3, 8, 9), 3), ("0", "1", "2"))
    assert data.train.labels.dtype == torch.int64
    assert data.train.labels.tolist() == LABELS.tolist()


@pytest.mark.parametrize("kind", [np.float64, np.float32, np.float16, torch.bfloat16])
def test_floats_become_float32(kind):
    torches = isinstance(kind, torch.dtype)
    values = torch.from_numpy(SIGNALS).to(kind) if torches else SIGNALS.astype(kind)
    data = both(values, layout="NCL")
    expected = values.float() if torches else torch.from_numpy(values.astype(np.float32))
    assert torch.equal(data.train.images, expected)
    assert data.train.images.dtype == torch.float32


def test_in_a_notebook_it_says_what_it_holds_and_not_its_numbers():
    data = both(np.zeros((12, 1, 8, 6), np.uint8), name="mine")
    assert repr(data) == "<Dataset mine: grey images of 8 × 6, 12 to train and 12 to test>"


def test_whole_numbers_that_are_bytes_become_bytes():
    data = both(torch.from_numpy(PIXELS).long())
    assert torch.equal(data.train.images, torch.from_numpy(PIXELS))


def test_arrays_that_can_t_be_written_to_are_copied():
    locked = PIXELS.copy()
    locked.setflags(write=False)
    data = both(locked)  # no warning of PyTorch's, which is an error in tests
    assert torch.equal(data.train.images, torch.from_numpy(PIXELS))


@pytest.mark.parametrize(
    ("shape", "layout", "expected"),
    [
        ((12, 30), None, (1, 30)),
        ((12, 3, 8, 9), None, (3, 8, 9)),
        ((12, 8, 9, 4), None, (4, 8, 9)),
        ((12, 1, 5, 6, 7), None, (1, 5, 6, 7)),
        ((12, 5, 6, 7, 1), None, (1, 5, 6, 7)),
        ((12, 28, 28), "NHW", (1, 28, 28)),
        ((12, 6, 100), "NCL", (6, 100)),
        ((12, 100, 6), "NLC", (6, 100)),
        ((12, 5, 6, 7), "NDHW", (1, 5, 6, 7)),
        ((12, 3, 6, 3), "NHWC", (3, 3, 6)),
    ],
)
def test_channels_come_first_whatever_the_layout(shape, layout, expected):
    values = np.arange(np.prod(shape)).reshape(shape).astype(np.float32)
    found = both(values, layout=layout).train.images
    assert tuple(found.shape[1:]) == expected
    last = (layout or "").endswith("C") or (
        layout is None and expected[0] != shape[1] and shape[2:]
    )
    moved = np.moveaxis(values, -1, 1) if last else values
    assert np.array_equal(found.numpy(), moved.reshape(12, *expected))


@pytest.mark.parametrize(
    ("shape", "old", "new"),
    [
        ((12, 6, 100), "channels-first", "NCL"),
        ((12, 5, 6, 7), "channels-first", "NCHW"),
        ((12, 5, 6, 7), "channels-last", "NHWC"),
        ((12, 5, 6, 7, 2), "channels-last", "NDHWC"),
        ((12, 5, 6), "no-channels", "NHW"),
        ((12, 5, 6, 7), "no-channels", "NDHW"),
    ],
)
def test_old_words_for_layouts_are_read_and_the_new_ones_told(shape, old, new, caplog, monkeypatch):
    monkeypatch.setattr(inputs, "_told", set())
    values = np.arange(np.prod(shape)).reshape(shape).astype(np.float32)
    assert torch.equal(both(values, layout=old).train.images, both(values, layout=new).train.images)
    told = [record.getMessage() for record in caplog.records]
    assert told == [f"fednf: layout='{old}' is now layout='{new}'"]


def test_names_are_classes_and_domains_are_owners():
    names = np.array(["cat", "dog", "ape"])[LABELS]
    owners = np.array([7, 3])[np.arange(12) % 2]
    data = both(PIXELS, names, classes=["ape", "dog", "cat", "eel"], domains=(owners, None))
    assert data.train.labels.tolist() == [2, 1, 0] * 4
    assert len(data.classes) == 4
    assert data.domains == ("3", "7")
    assert data.train.domains.tolist() == [1, 0] * 6
    assert data.test.domains is None
    assert both(PIXELS, names.tolist()).classes == ("ape", "cat", "dog")
    data = both(PIXELS, domains=(list("abcabcabcabc"), list("zzzzzzaaaaaa")))
    assert data.domains == ("a", "b", "c", "z")
    assert data.test.domains.tolist() == [3] * 6 + [0] * 6


@pytest.mark.parametrize(
    ("labels", "classes", "dtype", "expected"),
    [
        (RNG.normal(size=12), None, torch.float32, 1),
        (RNG.normal(size=(12, 4)), None, torch.float32, 4),
        (RNG.integers(0, 2, (12, 5)), None, torch.int64, 5),
        (RNG.random((12, 5)) < 0.5, list("abcde"), torch.int64, 5),
        (RNG.integers(0, 4, (12, 8, 9)), 4, torch.int64, 4),
        (RNG.normal(size=(12, 2, 3)), 6, torch.float32, 6),
    ],
)
def test_labels_of_other_tasks_pass_untouched(labels, classes, dtype, expected):
    data = both(PIXELS, labels, classes=classes)
    assert data.train.labels.dtype == dtype
    assert torch.equal(data.train.labels, torch.from_numpy(labels).to(dtype))
    assert data.form.classes == expected


def test_the_classes_of_masks_are_counted():
    masks = RNG.integers(0, 4, (12, 8, 9)).astype(np.uint8)
    masks[0, 0, 0] = 4
    assert both(PIXELS, masks).form.classes == 5


def test_a_share_of_the_training_examples_is_the_test():
    images = np.arange(200, dtype=np.uint8).reshape(200, 1, 1)
    labels = np.repeat([0, 1, 2], [100, 60, 40])
    options = {"layout": "NCL", "domains": (np.arange(200), None)}
    data, again = (Dataset((images, labels), 0.25, **options) for _ in range(2))
    assert data.test.labels.bincount().tolist() == [25, 15, 10]
    assert data.train.labels.bincount().tolist() == [75, 45, 30]
    whole = torch.cat([data.train.images, data.test.images]).flatten()
    assert sorted(whole.tolist()) == list(range(200))
    assert torch.equal(data.test.domains, data.test.images.flatten().long())
    assert data.fingerprint == again.fingerprint
    assert len(Dataset((images, labels / 2), 0.1, layout="NCL").test) == 20


NAN = SIGNALS.copy()
NAN[5, 1, 7] = np.nan
SHORT = {"layout": "NCL"}
REFUSED = {
    "train inputs have the shape .0, 3, 8, 9.": lambda: both(PIXELS[:0], LABELS[:0]),
    "train inputs have the shape .12,.": lambda: both(LABELS, LABELS),
    "test inputs have the shape .0, ": lambda: Dataset((PIXELS, LABELS), (PIXELS[:0], [])),
    r"example 5 has nan at \(1, 7\)": lambda: both(NAN, **SHORT),
    "example 0 has inf": lambda: both(np.full((12, 2, 5), 1e300), **SHORT),
    "train inputs are int64 from -1 to 2": lambda: both(np.array([[-1, 2]] * 12)),
    "train inputs are bool; give pixels": lambda: both(PIXELS > 9),
    "train inputs are lists of several": lambda: both([[1.0], [1.0, 2.0]]),
    "layout='last', expected one of": lambda: both(PIXELS, layout="last"),
    "'no-channels' leaves 4 dimensions": lambda: both(
        np.zeros((12, 1, 1, 1, 1)), layout="no-channels"
    ),
    "layout=NHW names 3 axes, but train inputs is float32": lambda: both(SIGNALS[0], layout="NHW"),
    "expected 1 to 3 dimensions of space for": lambda: both(np.zeros((12, 1, 1, 1, 1, 1))),
    "train has 12 inputs and 11 labels": lambda: both(PIXELS, LABELS[1:]),
    "test has 12 inputs and 5 labels": lambda: Dataset((PIXELS, LABELS), (PIXELS, LABELS[:5])),
    "test inputs are float32 of the shape": lambda: Dataset(
        (PIXELS, LABELS), (PIXELS.astype(float), LABELS)
    ),
    "test inputs are uint8 of the shape .3, 8, 8.": lambda: Dataset(
        (PIXELS, LABELS), (PIXELS[..., 1:], LABELS)
    ),
    "test labels are float32 .12,., but those of train int64": lambda: Dataset(
        (PIXELS, LABELS), (PIXELS, LABELS / 2)
    ),
    "train labels include 4, but not 1": lambda: both(PIXELS, LABELS * 2),
    "train labels include -1": lambda: both(PIXELS, LABELS - 1),
    "train example 2 is of class 2, but there are 2 classes": lambda: both(PIXELS, classes=2),
    "test example 11 is of class 3": lambda: Dataset(
        (PIXELS, LABELS), (PIXELS, [0] * 11 + [3])
    ),
    "example 3 is of the class 'cta', .* did you mean cat": lambda: both(
        PIXELS, ["cat", "dog", "dog", "cta"] * 3, classes=["cat", "dog"]
    ),
    "classes=3.0, expected a list of names": lambda: both(PIXELS, classes=3.0),
    "classes=True, expected a list of names": lambda: both(PIXELS, classes=True),
    "which has an order": lambda: both(PIXELS, classes={"a", "b", "c"}),
    "classes={'a': 0}, expected a list": lambda: both(PIXELS, classes={"a": 0}),
    r"classes=\['a', 'b', ''\], .* none empty": lambda: both(PIXELS, classes=["a", "b", ""]),
    "classes=10000000, expected 1 to 100,000": lambda: both(PIXELS, classes=10**7),
    "two of its classes are called 'a'": lambda: both(PIXELS, classes=["a", "b", "a "]),
    "two of its domains are called 'p'": lambda: both(PIXELS, domains=(["p", "p "] * 6, None)),
    "train labels are datetime64": lambda: both(PIXELS, np.zeros(12, "M8[D]")),
    "train labels are lists of several": lambda: both(PIXELS, [[1], [1, 2]] * 6),
    "classes='ab', expected a list": lambda: both(PIXELS, classes="ab"),
    r"classes=\[1, 1\]": lambda: both(PIXELS, classes=[1, 1]),
    "classes=0": lambda: both(PIXELS, classes=0),
    "train labels are complex128": lambda: both(PIXELS, LABELS * 1j),
    "train labels are list, expected one array": lambda: both(PIXELS, [None] * 12),
    "say with classes=... how many outputs": lambda: both(PIXELS, np.zeros((12, 2, 2))),
    "domains should be": lambda: both(PIXELS, domains=LABELS),
    "test domains are int64 of the shape .3,.": lambda: both(PIXELS, domains=(LABELS, [1, 2, 3])),
    "train domains are float64": lambda: both(PIXELS, domains=(LABELS / 2, None)),
    "train is ndarray, expected .inputs, labels.": lambda: Dataset(PIXELS, (PIXELS, LABELS)),
    "test is NoneType": lambda: Dataset((PIXELS, LABELS), None),
    "test=1.5, expected": lambda: Dataset((PIXELS, LABELS), 1.5),
    "test=0.01 of 12 examples leaves": lambda: Dataset((PIXELS, LABELS), 0.01),
}  # fmt: skip


def test_names_as_bytes_are_names_and_counts_of_any_kind_are_counts():
    names = np.array([b"cat", "dög".encode(), b"cow"])
    data = both(PIXELS, names[LABELS], domains=(names[LABELS], None))
    assert data.classes == data.domains == ("cat", "cow", "dög")
    assert both(PIXELS, classes=np.int64(4)).classes == ("0", "1", "2", "3")
    assert both(PIXELS, classes=names).classes == ("cat", "dög", "cow")


@pytest.mark.parametrize("words", REFUSED)
def test_what_does_not_fit_is_refused_in_one_line(words):
    with pytest.raises(ConfigError, match=words) as error:
        REFUSED[words]()
    assert "\n" not in str(error.value)


def test_the_example_runs():
    assert doctest.testmod(arrays).failed == 0
    assert doctest.testmod(arrays).attempted >= 3
