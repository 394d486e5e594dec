import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fl
from fl.config import Experiment, Partition, Sampling
from fl.config.parsing import ConfigError
from fl.data import Dataset, Share, Split, batches, deal, fashion_mnist_small, load, share, shares
from fl.data.augment import crop_flip
from fl.data.dataset import DataNotHere
from fl.reproducibility.seeds import stream

NAME = "fashion-mnist-small"


def test_the_shipped_images_are_what_they_say():
    data = load(NAME)
    assert data.train.images.shape == (5000, 1, 28, 28)
    assert data.test.images.shape == (1000, 1, 28, 28)
    assert data.train.labels.bincount().tolist() == [500] * 10
    assert data.test.labels.bincount().tolist() == [100] * 10
    # Within a standard error of the figures of all 60,000 images: .2860 and .3530.
    assert data.mean.item() / 255 == pytest.approx(0.2860, abs=0.002)
    assert data.std.item() / 255 == pytest.approx(0.3530, abs=0.002)
    inputs = data.inputs(data.train.images)
    assert float(inputs.mean()) == pytest.approx(0, abs=1e-4)
    assert float(inputs.std()) == pytest.approx(1, abs=1e-4)


def test_a_flipped_byte_is_noticed_and_the_file_named(tmp_path, monkeypatch):
    raw = bytearray(fashion_mnist_small.places()[0].read_bytes())
    raw[1000] ^= 1
    path = tmp_path / "damaged.npz"
    path.write_bytes(raw)
    monkeypatch.setattr(fashion_mnist_small, "places", lambda: (path,))
    with pytest.raises(ValueError, match=r"damaged\.npz is damaged"):
        fashion_mnist_small.load()


def test_missing_images_are_one_clear_line(tmp_path, monkeypatch):
    monkeypatch.setattr(fashion_mnist_small, "places", lambda: (tmp_path / "no.npz",))
    with pytest.raises(DataNotHere, match="fednf data list") as error:
        fashion_mnist_small.load()
    assert "\n" not in str(error.value)


BUNDLED = """
import shutil, sys
from pathlib import Path
from fl.data import fashion_mnist_small as f

def found():
    return next(path for path in f.places() if path.is_file())

print(f.__file__, found(), sep="\\n")
Path(sys.argv[2]).parent.mkdir(parents=True)
shutil.copy(sys.argv[1], sys.argv[2])
print(found())
"""


@pytest.mark.slow
def test_a_bundle_without_images_finds_them_in_the_cache(tmp_path):
    """What `flwr run` unpacks holds the .py files of three rooms and no data."""
    root = Path(fl.__file__).parent.parent
    for room in ("fl", "strategies", "partitions"):
        shutil.copytree(root / room, tmp_path / room, ignore=shutil.ignore_patterns("*.npz"))
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    cached = tmp_path / "cache" / "fednf" / f"{NAME}.npz"
    (tmp_path / "bundled.py").write_text(BUNDLED)
    words = [sys.executable, "bundled.py", str(fashion_mnist_small.places()[0]), str(cached)]
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
    module, before, after = done.stdout.splitlines()
    assert module.startswith(str(tmp_path)), done.stderr
    assert not before.startswith(str(tmp_path))
    assert after == str(cached)


def test_the_cache_is_filled_once(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    fashion_mnist_small.fill_cache()
    written = fashion_mnist_small.cache().stat().st_mtime_ns
    fashion_mnist_small.fill_cache()
    assert fashion_mnist_small.cache().stat().st_mtime_ns == written
    assert tmp_path in fashion_mnist_small.cache().parents


@pytest.mark.parametrize("kind", ["iid", "dirichlet", "dirichlet-equal"])
def test_every_image_belongs_to_one_client(kind):
    partition = Partition(kind=kind, alpha=0.1, clients=7)
    parts = deal(Experiment(seed=3, partition=partition, sampling=Sampling(clients=7)))
    assert len(parts) == 7
    assert torch.cat(parts).sort().values.tolist() == list(range(5000))
    knobs = Experiment(seed=3, partition=partition, sampling=Sampling(clients=7))
    shares = [share({"partition-id": i}, knobs).train for i in range(7)]
    assert all(torch.equal(a, b) for a, b in zip(parts, shares, strict=True))


def test_the_seed_decides_the_deal():
    one, other = (deal(Experiment(seed=seed)) for seed in (1, 2))
    assert not torch.equal(one[0], other[0])


@pytest.mark.parametrize("number", [-1, 20, "0", None])
def test_a_node_has_to_say_which_share_is_its_own(number):
    with pytest.raises(ConfigError, match="partition-id"):
        share({"partition-id": number}, Experiment())


def test_wishes_that_the_data_can_t_fulfil_are_one_line():
    with pytest.raises(ConfigError, match=r"partition\.clients"):
        deal(Experiment(partition=Partition(clients=5001)))
    with pytest.raises(ConfigError, match="did you mean fashion-mnist-small"):
        load("fashion-mnist-smal")


@pytest.fixture
def formats(monkeypatch, tmp_path):
    """Let readers of files note what they are asked for; the home folder is an empty one."""
    asked = []

    def read(path: Path, layout: str) -> Dataset:
        asked.append(("read", path))
        return load(NAME)

    def hub(repo: str) -> Dataset:
        asked.append(("hub", repo))
        return load(NAME)

    monkeypatch.setitem(sys.modules, "fl.data.formats", SimpleNamespace(read=read, hub=hub))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    shares._load.cache_clear()
    yield asked
    shares._load.cache_clear()


def test_what_is_no_known_name_is_read_from_the_hub_or_a_path(formats, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / NAME).mkdir()  # a known name wins over a folder
    for name in ("hf:owner/set", "mine", str(tmp_path / "mine"), NAME, "hf:owner/set"):
        load(name)
    assert formats == [
        ("hub", "owner/set"),
        ("read", Path("mine")),
        ("read", tmp_path / "mine"),
        ("hub", "owner/set"),  # two data sets are held at a time
    ]


def test_medmnist_is_read_from_its_own_folder_or_the_cache(formats, tmp_path):
    with pytest.raises(DataNotHere, match=r"put organmnist3d\.npz .* at .*\.medmnist"):
        load("medmnist:organmnist3d")
    cached = tmp_path / "cache" / "fednf" / "organmnist3d.npz"
    own = tmp_path / ".medmnist" / "organmnist3d.npz"
    for path in (cached, own):
        path.parent.mkdir(parents=True)
        path.touch()
        shares._load.cache_clear()
        load("medmnist:organmnist3d")
    assert formats == [("read", cached), ("read", own)]
    with pytest.raises(ConfigError, match=r"medmnist:\.\./x: expected a name"):
        load("medmnist:../x")


def test_a_known_set_that_is_not_here_says_how_to_get_it(formats):
    with pytest.raises(DataNotHere, match="fetch it with: fednf data fetch cifar10"):
        load("cifar10")


@pytest.mark.parametrize("name", ["cifar-10", "medmnist:"])
def test_a_name_that_is_nothing_is_one_line(formats, name):
    with pytest.raises(ConfigError, match=r"^data\.name=.*: no such data set; [^\n]*$"):
        load(name)
    assert formats == []


@pytest.mark.parametrize("name", ["./nowhere.npz", "nowhere.npz", "~/nowhere", "/no/where"])
def test_a_path_that_is_not_there_does_not_exist(formats, name):
    with pytest.raises(ConfigError, match=r"^data\.name=.*nowhere|where does not exist$") as error:
        load(name)
    assert str(error.value).endswith(f"{Path(name).expanduser()} does not exist")
    assert formats == []


def holding(indices: torch.Tensor, noise: float = 0.0) -> Share:
    return Share(load(NAME), indices, indices[:0], noise)


@settings(max_examples=30)
@given(st.integers(1, 70), st.integers(1, 40), st.integers(1, 3))
def test_batches_hold_every_image_once_an_epoch(examples, batch_size, epochs):
    data, indices = load(NAME), torch.arange(100, 100 + examples)
    sizes, labels = [], []
    for inputs, truth in batches(holding(indices), batch_size, epochs, stream(1)):
        assert inputs.dtype == torch.float32
        sizes.append(len(inputs))
        labels += truth.tolist()
    full, rest = divmod(examples, batch_size)
    assert sizes == ([batch_size] * full + [rest] * (rest > 0)) * epochs
    assert sorted(labels) == sorted(data.train.labels[indices].tolist() * epochs)


def test_batches_come_in_a_new_order_every_epoch_and_the_same_for_the_same_seed():
    indices = torch.arange(2500)  # more than one block

    def order(seed: int) -> list[int]:
        return torch.cat([y for _, y in batches(holding(indices), 4, 2, stream(seed))]).tolist()

    assert order(1) == order(1) != order(2)
    assert order(1)[:2500] != order(1)[2500:]


def test_inputs_are_the_bytes_on_another_scale():
    data = load(NAME)
    byte = np.asarray(data.train.images[0], np.float64)
    expected = (byte - data.mean.item()) / data.std.item()
    assert np.allclose(data.inputs(data.train.images[:1])[0], expected, atol=1e-6)


def test_every_channel_has_its_own_scale_whatever_its_type_and_dimensions():
    rng = np.random.default_rng(1)
    for space, dtype in (((9,), np.float32), ((4, 5), np.uint8), ((3, 4, 2), np.uint8)):
        raw = (rng.random((50, 3, *space)) * 250).astype(dtype)
        raw[:, 1] = 7  # constant
        before = raw.copy()
        split = Split(torch.from_numpy(raw), torch.zeros(50, dtype=torch.int64))
        data = Dataset("x", split, split, ("a",), "none", "here")
        assert (data.channels, data.dims) == (3, len(space))
        axes = (0, *range(2, raw.ndim))
        mean, std = raw.astype(np.float64).mean(axes), raw.astype(np.float64).std(axes)
        assert np.allclose(data.mean, mean)
        assert np.allclose(data.std, np.where(std > 0, std, 1))
        assert data.inputs(split.images).double().mean(axes).abs().max() < 1e-5
        assert np.array_equal(raw, before), "the data must not change"


@pytest.mark.parametrize("space", [(16,), (16, 24), (8, 8, 16)])
def test_a_crop_is_a_shifted_piece_and_half_are_mirrored(space):
    """On an image whose pixels tell their own place, every pixel says where it came from."""
    places = np.stack(np.meshgrid(*map(np.arange, space), indexing="ij")) + 1
    images = torch.from_numpy(places.astype(np.uint8)).expand(400, -1, *(-1,) * len(space))
    out = crop_flip(images, np.random.default_rng(1))
    assert (out.shape, out.dtype) == (images.shape, images.dtype)
    mirrored = 0
    for image in out.numpy().astype(int):
        inside = (image > 0).all(axis=0)
        shifts = image - places
        last = shifts[-1][inside]
        if len(np.unique(last)) > 1:
            mirrored += 1
            last = image[-1][inside] - places[-1][..., ::-1][inside]
        for axis, values in enumerate([*(shift[inside] for shift in shifts[:-1]), last]):
            assert len(np.unique(values)) == 1
            assert abs(values[0]) <= space[axis] // 8
    assert 160 < mirrored < 240


def test_augmentation_and_noise_follow_their_stream():
    data, indices = load(NAME), torch.arange(40)

    def inputs(seed, noise=0.0, augment="none"):
        found = batches(holding(indices, noise), 7, 1, stream(seed), augment)
        return torch.cat([x for x, _ in found])

    for options in ({"augment": "crop-flip"}, {"noise": 0.5}):
        assert torch.equal(inputs(1, **options), inputs(1, **options))
        assert not torch.equal(inputs(1, **options), inputs(2, **options))
    added = inputs(1, noise=0.5) - inputs(1)
    assert float(added.std()) == pytest.approx(0.5 * 255 / data.std.item(), rel=0.02)
