from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn

from tests.fl.nn.parity import GOLDEN, Fingerprint, assert_same, fingerprint, values


class Toy(nn.Module):
    def __init__(self, name: str, gain: float = 1.0):
        super().__init__()
        conv, norm = nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4)
        self.layers = nn.Sequential(OrderedDict({name: conv, "norm": norm}))
        self.gain = gain

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x).relu().mean((2, 3)) * self.gain


def test_values_are_a_function_of_name_and_shape() -> None:
    assert torch.equal(values("a.weight", (3, 4)), values("a.weight", (3, 4)))
    assert not torch.equal(values("a.weight", (3, 4)), values("b.weight", (3, 4)))
    assert values("a.skipinit_gain", ()).shape == ()
    assert values("a.weight", (50, 8, 3, 3)).var().item() == pytest.approx(1 / 72, rel=0.05)
    assert values("norm.running_var", (99,)).min() > 0.49


def test_pcg64_and_crc32_give_what_the_files_were_made_with() -> None:
    expected = [0.26597686, 0.31388533, 0.11333116]
    assert values("images", (3,)).tolist() == pytest.approx(expected, abs=1e-8)


def test_a_fingerprint_knows_a_network_under_other_names_only() -> None:
    shape = 2, 3, 9, 9
    theirs = fingerprint(Toy("a"), shape)
    assert_same(fingerprint(Toy("b"), shape, lambda name: name.replace("b.", "a.")), theirs)
    for other in (Toy("a", 1 + 1e-5), Toy("b")):
        with pytest.raises(AssertionError):
            assert_same(fingerprint(other, shape), theirs)


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.npz")), ids=lambda path: path.stem)
def test_golden_files_are_small_and_whole(path) -> None:
    assert path.stat().st_size < 100_000
    golden = Fingerprint.load(path.stem)
    assert golden.names.tolist() == sorted(golden.names.tolist())
    assert golden.names.shape == golden.norms.shape == golden.projections.shape
    assert np.isfinite(golden.logits).all()
    assert golden.norms.min() > 0
