"""A weighted mean of many networks that holds one of them at a time."""

from collections.abc import Mapping

import numpy as np

_PIECE = 16_384
"""Values, of 8 bytes each."""


class Mean:
    """The mean ``Σ n_k x_k / Σ n_k`` of named arrays, added one by one, in float64.

    A variance v_k that comes with its mean m_k can be pooled: ``Σ n_k (v_k + (m_k - m)²) / Σ n_k``,
    where m is the mean of the means, is the variance of all that the clients saw together (the law
    of total variance), while the mean of the variances leaves out how far the clients are apart.

    Args:
        moments: the names of the variances to be pooled -> those of their means.
    """

    def __init__(self, moments: Mapping[str, str] | None = None) -> None:
        self.total = 0.0
        self.moments = moments or {}
        self.sums: dict[str, np.ndarray] = {}
        self.dtypes: dict[str, np.dtype] = {}
        self._product = np.empty(_PIECE)

    def add(self, arrays: Mapping[str, np.ndarray], weight: float) -> None:
        """Add arrays under their names."""
        for name, array in arrays.items():
            if name not in self.sums:
                self.sums[name] = np.zeros(array.shape, np.float64)
                self.dtypes[name] = array.dtype
            if name in self.moments:
                array = array + arrays[self.moments[name]].astype(np.float64) ** 2
            self._add_weighted(self.sums[name].reshape(-1), array.reshape(-1), weight)
        self.total += weight

    def _add_weighted(self, total: np.ndarray, values: np.ndarray, weight: float) -> None:
        """Add in pieces that stay in the processor's cache: memory is read and written once."""
        for begin in range(0, len(total), _PIECE):
            piece = total[begin : begin + _PIECE]
            product = self._product[: len(piece)]
            np.multiply(values[begin : begin + _PIECE], weight, out=product, dtype=np.float64)
            piece += product

    def result(self) -> dict[str, np.ndarray]:
        """Return the mean in the arrays' own types; integers are rounded to the nearest."""
        means = {name: np.asarray(total / self.total) for name, total in self.sums.items()}
        for variance, mean in self.moments.items():
            means[variance] = np.maximum(means[variance] - means[mean] ** 2, 0)
        return {name: _cast(mean, self.dtypes[name]) for name, mean in means.items()}


def _cast(mean: np.ndarray, dtype: np.dtype) -> np.ndarray:
    return np.asarray(mean if dtype.kind == "f" else np.rint(mean), dtype)
