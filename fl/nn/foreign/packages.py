"""Networks of installed packages: `timm:NAME` and `torchvision:NAME`."""

import difflib
import importlib
from collections.abc import Callable, Iterable, Sequence
from types import ModuleType

import torch
from torch import nn

from fl.config.components import FromPackage
from fl.config.parsing import ConfigError, Value
from fl.reproducibility.errors import in_words


def maker(source: FromPackage) -> Callable[..., nn.Module]:
    """Return what makes a package's network: (shape, classes, **options) -> network."""
    return {"timm": _Timm, "torchvision": _Torchvision}[source.package](source.name)


class _Timm:
    """Makes timm's networks, which take classes and channels as they are; options are theirs."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, shape: Sequence[int], classes: int, **options: Value) -> nn.Module:
        """Return the network, for images with any number of channels."""
        timm = _package("timm", shape)
        if not timm.is_model(self.name.partition(".")[0]):
            raise ConfigError(_unknown("timm", self.name, timm.list_models()))
        return timm.create_model(self.name, num_classes=classes, in_chans=shape[0], **options)


class _Torchvision:
    """Makes torchvision's classifiers, with a first and a last layer for the data set's images."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, shape: Sequence[int], classes: int, **options: Value) -> nn.Module:
        """Return the network; trained weights come with a new last layer."""
        models = _package("torchvision", shape).models
        known = models.list_models(module=models)
        if self.name not in known:
            raise ConfigError(_unknown("torchvision", self.name, known))
        trained = bool(options.get("weights"))
        given = options if trained else {"num_classes": classes, **options}
        network = models.get_model(self.name, **given)
        if trained:
            _replace_last(network, classes)
        if shape[0] != 3:
            _replace_first(network, shape[0], trained)
        return network


def _package(name: str, shape: Sequence[int]) -> ModuleType:
    if len(shape) != 3:
        raise ConfigError(
            f"networks of {name} are for images, and examples here are {tuple(shape)}"
        )
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ConfigError(f"{name} can't be imported ({error}): pip install {name}") from None
    except Exception as error:  # torchvision's for CUDA beside PyTorch's for CPUs is a RuntimeError
        raise ConfigError(
            f"{name} can't be imported ({in_words(error)}); torch {torch.__version__} needs the "
            "torchvision that was built for it, see https://pytorch.org/get-started/locally"
        ) from None


def _unknown(package: str, name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=3)
    hint = f"did you mean {', '.join(near)}?" if near else f"see {package}'s list of models"
    return f"{package} has no {name}; {hint}"


def _replace_first(network: nn.Module, channels: int, trained: bool) -> None:
    """Let the first convolution, which takes three channels, take another number.

    Trained weights are averaged over the three, and scaled so that equal channels give what three
    equal ones gave.
    """
    name, conv = next(
        ((n, m) for n, m in network.named_modules() if isinstance(m, nn.Conv2d)), ("", None)
    )
    if conv is None or conv.in_channels != 3:
        raise ConfigError("this network does not begin with a convolution of three channels")
    made = _like(conv, inputs=channels)
    if trained:
        with torch.no_grad():
            made.weight.copy_(conv.weight.mean(1, keepdim=True) * (3 / channels))
            if conv.bias is not None:
                made.bias.copy_(conv.bias)  # pyrefly: ignore
    network.set_submodule(name, made)


def _replace_last(network: nn.Module, classes: int) -> None:
    """Let the last layer give another number of outputs, by weights that are new."""
    *_, (name, layer) = (
        (n, m) for n, m in network.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)
    )
    if isinstance(layer, nn.Conv2d):
        made = _like(layer, outputs=classes)
    else:
        made = nn.Linear(layer.in_features, classes, layer.bias is not None)
    network.set_submodule(name, made)


def _like(conv: nn.Conv2d, inputs: int = 0, outputs: int = 0) -> nn.Conv2d:
    """Return a convolution as another, for other channels, with new weights."""
    return nn.Conv2d(
        inputs or conv.in_channels,
        outputs or conv.out_channels,
        conv.kernel_size,  # pyrefly: ignore
        stride=conv.stride,  # pyrefly: ignore
        padding=conv.padding,  # pyrefly: ignore
        dilation=conv.dilation,  # pyrefly: ignore
        groups=conv.groups,
        bias=conv.bias is not None,
    )
