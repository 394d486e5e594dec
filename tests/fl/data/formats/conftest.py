"""What every layout's tests need: examples to write, and a way to be refused."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from fl.config.parsing import ConfigError
from fl.data import Dataset
from fl.data.formats import read


@dataclass
class Examples:
    """Arrays as they should come back: (n, channels, *space) and (n,), classes 0 to K-1."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray

    def are(self, data: Dataset) -> bool:
        """Whether a data set holds exactly these, values, types and order."""
        found = (data.train.images, data.train.labels, data.test.images, data.test.labels)
        return all(
            array.numpy().dtype == expected.dtype and np.array_equal(array.numpy(), expected)
            for array, expected in zip(found, vars(self).values(), strict=True)
        )


@pytest.fixture(scope="session")
def examples() -> Callable[..., Examples]:
    """Draw examples; the training split has every class."""

    def draw(train=6, test=3, shape=(1, 4, 5), classes=3, seed=0, dtype=np.uint8) -> Examples:
        rng = np.random.default_rng(seed)

        def images(count: int) -> np.ndarray:
            return (rng.random((count, *shape)) * 256).astype(dtype)

        first = np.arange(classes)
        labels = rng.permutation(np.concatenate([first, rng.integers(classes, size=train)]))
        return Examples(
            images(len(labels)),
            labels.astype(np.int64),
            images(test),
            rng.integers(classes, size=test).astype(np.int64),
        )

    return draw


@pytest.fixture(scope="session")
def refusal() -> Callable[..., str]:
    """Read a path that can't be read, and return the one line that says why."""

    def refused(path: Path, call: Callable[..., Dataset] = read) -> str:
        with pytest.raises(ConfigError) as error:
            call(path)
        assert "\n" not in str(error.value)
        return str(error.value)

    return refused


@pytest.fixture(scope="session")
def damage() -> Callable[[Path], None]:
    """Read a file cut off anywhere, or with any byte changed: data or one line, no traceback."""

    def damaged(file: Path, path: Path) -> None:
        raw, rng = file.read_bytes(), np.random.default_rng(1)
        refused = 0
        for place in rng.integers(len(raw), size=25):
            for changed in (
                raw[:place],
                raw[:place] + bytes([raw[place] ^ 255]) + raw[place + 1 :],
            ):
                file.write_bytes(changed)
                with suppress(ConfigError):
                    read(path)
                    refused -= 1
                refused += 1
        file.write_bytes(raw)
        read(path)
        assert refused >= 25, "a file that is cut off was read"

    return damaged
