"""Networks of timm and torchvision, as they are and with our recipes."""

import copy
import importlib
import json
import math
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from fl.config import Experiment
from fl.config.components import FromPackage
from fl.config.parsing import ConfigError
from fl.nn import convert, seed_noise
from fl.nn.foreign.packages import maker
from fl.server.journal import Journal
from fl.simulation import run

SHAPE = (3, 32, 32)
NETWORKS = (
    "timm:resnet18",
    "timm:convnext_atto",
    "timm:nf_resnet26",
    "timm:efficientnet_b0",
    "torchvision:resnet18",
)
RECIPES = ("salunet", "zc-swish", "groupnorm", "ws-groupnorm")
NORMS = {"timm:resnet18": 20, "timm:convnext_atto": 17, "timm:nf_resnet26": 29}
NORMS |= {"timm:efficientnet_b0": 49, "torchvision:resnet18": 20}


@pytest.fixture(scope="module")
def packages():
    """Import both, or skip.

    PyPI's torchvision for Linux is built for CUDA, and its operators don't load beside PyTorch for
    CPUs. Its networks need none of them, so two that it asks for are declared.
    """
    operators = torch.library.Library("torchvision", "FRAGMENT")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("torch")
        try:
            importlib.import_module("torchvision")
        except ModuleNotFoundError as error:
            pytest.skip(str(error))
        except RuntimeError:
            for name in ("nms", "qnms"):
                operators.define(f"{name}(Tensor dets, Tensor scores, float iou) -> Tensor")
            importlib.import_module("torchvision")
        pytest.importorskip("timm")
    yield
    del operators


def make(name: str, shape=SHAPE, **options) -> nn.Module:
    torch.manual_seed(1)
    return maker(FromPackage(*name.split(":")))(shape, 5, **options)


def images(size: int, shape=SHAPE) -> torch.Tensor:
    return torch.randn(size, *shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["timm:resnet18", "torchvision:resnet18"])
def test_none_is_a_resnet_without_batchnorm_bit_for_bit(packages, name):
    network = make(name)
    by_hand, converted = copy.deepcopy(network), convert(network, "none", shape=SHAPE)
    for where, layer in list(by_hand.named_modules()):
        if isinstance(layer, nn.BatchNorm2d):
            by_hand.set_submodule(where, nn.Identity())
    assert torch.equal(converted.train()(images(2)), by_hand.train()(images(2)))


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_own_computes_what_the_author_s_network_does(packages, name):
    network = make(name)
    own = convert(copy.deepcopy(network), "own", shape=SHAPE)
    for mode in (network, own):
        mode.train()
        seed_noise(mode, torch.Generator())
        for layer in mode.modules():
            if "drop" in type(layer).__name__.lower():
                layer.eval()
    assert torch.equal(own(images(2)), network(images(2)))
    assert torch.equal(own.eval()(images(2)), network.eval()(images(2)))


@pytest.mark.slow
def test_channels_and_classes_are_the_data_s(packages):
    for name in NETWORKS:
        assert make(name, (1, 32, 32)).eval()(images(2, (1, 32, 32))).shape == (2, 5)
    for name, line in [("timm:resnet81", "resnet18"), ("torchvision:resnt18", "resnet18")]:
        with pytest.raises(ConfigError, match=f"has no .*did you mean .*{line}"):
            make(name)
    with pytest.raises(ConfigError, match="are for images"):
        make("timm:resnet18", (1, 64))


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("name", NETWORKS)
def test_a_federated_round_of_single_images_with_signals(packages, tmp_path, name, recipe):
    pixels = np.random.default_rng(1).integers(0, 256, (4, 32, 32, 3)).astype(np.uint8)
    labels = np.arange(4) % 2
    np.savez(tmp_path / "d.npz", x_train=pixels, y_train=labels, x_test=pixels, y_test=labels)
    knobs = Experiment.from_flat(
        {
            "network.kind": name,
            "recipe": recipe,
            "data.name": str(tmp_path / "d.npz"),
            "device": "cpu",
            "rounds": 1,
            "partition.kind": "iid",
            "partition.clients": 2,
            "partition.min-size": 1,
            "sampling.clients": 1,
            "client.batch-size": 1,
            "signals.every": 1,
            "signals.images": 1,
        }
    )
    journal = Journal(tmp_path / "run")
    result = run(knobs, journal)
    assert journal.rounds()[1]["replied"] == 1
    assert math.isfinite(result["final_loss"])
    lines = (tmp_path / "run" / "signals.jsonl").read_text(encoding="utf-8").splitlines()
    kinds = [layer["kind"] for layer in json.loads(lines[0])["layers"]]
    assert kinds.count("norm") == (0 if recipe == "zc-swish" else NORMS[name])
    assert kinds.count("activation") >= 12


def test_a_package_that_is_missing_is_one_line(monkeypatch):
    module = importlib.import_module("fl.config.components.names")
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="timm is not installed; pip install timm"):
        Experiment.from_flat({"network.kind": "timm:resnet18"})
