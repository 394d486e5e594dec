import numpy as np
import pytest

from partitions import noise_levels


def test_the_variance_grows_evenly_up_to_sigma():
    np.testing.assert_allclose(noise_levels(4, 0.1) ** 2, [0.025, 0.05, 0.075, 0.1])
    np.testing.assert_allclose(noise_levels(1, 0.5), [0.5**0.5])
    assert noise_levels(3, 0.0).tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("clients", "sigma", "message"),
    [
        (0, 0.1, r"^partition\.clients is 0: set it to 1 or more$"),
        (2, -0.1, r"^partition\.noise is -0\.1: set it to a finite number, 0 or more$"),
        (2, float("inf"), r"^partition\.noise is inf: set it"),
        (2, float("nan"), r"^partition\.noise is nan: set it"),
    ],
)
def test_the_impossible_is_refused(clients, sigma, message):
    with pytest.raises(ValueError, match=message):
        noise_levels(clients, sigma)
