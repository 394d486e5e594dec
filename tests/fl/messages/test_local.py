"""Which tensors of a network stay with a client."""

import pytest
import torch
from torch import nn

from fl.config import Experiment
from fl.config.parsing import ConfigError
from fl.data import Form
from fl.messages.local import staying
from fl.nn import scalars
from fl.training.parameters import as_shared, build_network


def network(recipe: str, kind: str = "plainnet") -> nn.Module:
    flat = {"network.kind": kind, "network.depth": 4, "network.width": 4, "recipe": recipe}
    return build_network(Experiment.from_flat(flat), torch.Generator(), Form((1, 8, 8), 3)).module


def kept(module: nn.Module, local: str, **flat: object) -> set[str]:
    return set(staying(Experiment.from_flat({"state.local": local, **flat}), module, 3))


def test_each_kind_keeps_what_its_name_says():
    batchnorm, salu, plain = network("batchnorm"), network("salunet"), network("none")
    own = {name for name in batchnorm.state_dict() if ".norm." in name}
    assert {name.rpartition(".")[2] for name in own} == {
        "weight", "bias", "running_mean", "running_var",
    }  # fmt: skip
    assert kept(batchnorm, "norm") == own
    assert kept(batchnorm, "norm", **{"state.bn": "local"}) == own
    dropped = as_shared(Experiment.from_flat({"recipe": "batchnorm", "state.local": "norm"}))
    assert dropped.state.bn == "drop"
    statistics = {name for name in own if "running" in name}
    assert kept(batchnorm, "none", **{"state.bn": "local"}) == statistics
    head = {"classifier.weight", "classifier.bias"}
    assert kept(batchnorm, "head", **{"state.bn": "local"}) == statistics | head
    assert kept(salu, "activations") == scalars(salu) != set()
    assert kept(plain, "norm") == kept(plain, "activations") == kept(plain, "none") == set()
    for module in (batchnorm, salu, plain):
        assert kept(module, "head") == kept(module, "classifier.*") == head
    some = kept(batchnorm, "*.conv.weight,classifier.bias")
    convs = {name for name in batchnorm.state_dict() if name.endswith(".conv.weight")}
    assert some == convs | {"classifier.bias"}


class Stranger(nn.Module):
    """Has tied weights, PyTorch's normalizers and activation, and a buffer of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.twin = nn.Linear(4, 4), nn.Linear(4, 4)
        self.twin.weight = self.body.weight
        self.norm, self.prelu = nn.GroupNorm(2, 4), nn.PReLU()
        self.instance = nn.InstanceNorm1d(4, affine=True, track_running_stats=True)
        self.register_buffer("mask", torch.ones(4))
        self.out = nn.Linear(4, 3)


def test_a_stranger_s_layers_are_found_by_what_they_are():
    module = Stranger()
    buffers = {f"instance.{n}" for n in ("running_mean", "running_var", "num_batches_tracked")}
    norms = {f"{layer}.{n}" for layer in ("norm", "instance") for n in ("weight", "bias")}
    assert kept(module, "norm") == norms | buffers
    assert kept(module, "activations") == {"prelu.weight"}
    assert kept(module, "head") == {"out.weight", "out.bias"}
    assert kept(module, "body.weight") == {"body.weight", "twin.weight"}


@pytest.mark.parametrize(
    ("local", "said"),
    [
        ("normm", "no parameter's name matches normm; expected none, norm, activations, head, or"),
        ("classifier.*,boddy.*", r"no parameter's name matches boddy\.\*"),
        ("*", r"state.local=\* leaves no parameter to share"),
        ("*.running_mean", "no parameter's name matches"),
    ],
)
def test_a_pattern_of_nothing_or_of_all_is_refused(local, said):
    with pytest.raises(ConfigError, match=said) as refused:
        kept(network("batchnorm"), local)
    assert "\n" not in str(refused.value)


def test_a_head_that_is_none_is_refused():
    with pytest.raises(ConfigError, match=r"a last layer with 3 outputs, and .*is 1;"):
        kept(nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 4)), "head")
    with pytest.raises(ConfigError, match="and no layer has weights"):
        kept(nn.PReLU(), "head")


@pytest.mark.parametrize(
    ("flat", "said"),
    [
        ({"state.bn": "pooled"}, "state.bn=pooled shares the statistics that state.local=norm"),
        ({"state.bn": "recalibrate"}, "leave state.bn out"),
        ({"state.local": "a, b"}, "patterns of parameters' names, with commas and no spaces"),
        ({"state.local": ""}, "state.local"),
    ],
)
def test_what_has_no_meaning_is_refused(flat, said):
    with pytest.raises(ConfigError, match=said):
        Experiment.from_flat({"state.local": "norm", **flat})
