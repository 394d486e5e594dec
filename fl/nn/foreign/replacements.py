"""What takes the place of single layers in a network that we never saw."""

from collections.abc import Callable, Sequence

import torch
from torch import nn

from fl.config.parsing import ConfigError
from fl.nn.foreign.observed import BATCH_NORMS, is_norm
from fl.nn.layers.convs import CONVOLUTIONS, Kernel
from fl.nn.layers.layouts import BatchNormThen
from fl.nn.layers.noise import ChannelDropout, Dropout, StochasticDepth
from fl.nn.layers.normalizers.batch_norm import BatchNorm
from fl.nn.layers.unset import unset

Conv = nn.Conv1d | nn.Conv2d | nn.Conv3d


def replace_all(module: nn.Module, replacement: Callable[[str, nn.Module], nn.Module]) -> nn.Module:
    """Replace the layers of a network, parts before what they are part of.

    A layer that stands in several places is asked for once, and replaced in all.

    Args:
        module: is changed in place.
        replacement: (name, layer) -> what takes its place, which may be the layer itself.

    Returns:
        The module, or its own replacement.
    """
    places = list(module.named_modules(remove_duplicate=False))
    names = {id(layer): name for name, layer in module.named_modules()}
    made: dict[int, nn.Module] = {}
    for name, layer in reversed(places):
        if id(layer) not in made:
            made[id(layer)] = replacement(names[id(layer)], layer)
        if name and made[id(layer)] is not layer:
            module.set_submodule(name, made[id(layer)])
    return made[id(module)]


def own_batch_norm(_: str, layer: nn.Module) -> nn.Module:
    """Return our BatchNorm with the numbers and names of PyTorch's or timm's; others as they are.

    One that averages over all batches (`momentum=None`), or passes in a way of its own, stays.
    """
    torch_s = type(layer).forward in {kind.forward for kind in BATCH_NORMS}
    timm_s = type(layer).__name__ == "BatchNormAct2d"
    if not (isinstance(layer, BATCH_NORMS) and is_norm(layer) and (torch_s or timm_s)):
        return layer
    if layer.momentum is None:
        return layer
    behind, affine = dict(layer.named_children()), layer.affine
    ours = (
        BatchNormThen(layer.num_features, affine, behind)
        if behind
        else BatchNorm(layer.num_features, affine)
    )
    ours.weight, ours.bias = layer.weight, layer.bias
    ours.eps, ours.momentum = layer.eps, layer.momentum
    if layer.running_mean is None or layer.running_var is None:
        ours.remembers = False
        del ours.running_mean, ours.running_var
    else:
        ours.running_mean, ours.running_var = layer.running_mean, layer.running_var
    return ours.train(layer.training)


_CHANNEL_DROPOUTS = (nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)


def own_noise(_: str, layer: nn.Module) -> nn.Module:
    """Return our layer for dropout or stochastic depth; others, and rates of 1, as they are."""
    kind = type(layer).__name__
    if type(layer) is nn.Dropout and layer.p < 1:
        ours = Dropout(layer.p)
    elif type(layer) in _CHANNEL_DROPOUTS and layer.p < 1:  # pyrefly: ignore
        ours = ChannelDropout(layer.p)  # pyrefly: ignore
    elif kind == "DropPath" and 0 <= (getattr(layer, "drop_prob", None) or 0.0) < 1:
        rate = getattr(layer, "drop_prob", None) or 0.0
        ours = StochasticDepth(rate, getattr(layer, "scale_by_keep", True))
    elif kind == "StochasticDepth" and getattr(layer, "mode", "") == "row":
        ours = StochasticDepth(getattr(layer, "p", 0.0))
    else:
        return layer
    return ours.train(layer.training)


def kernel(name: str, conv: Conv) -> Kernel:
    """Return the shape of a convolution as recipes are given it.

    Args:
        name: of the layer, for messages.
        conv: one of PyTorch's convolutions, or a subclass.

    Raises:
        ConfigError: it has kernels, strides or paddings that `Kernel` can't say.
    """
    sides, strides, dilations = (set(x) for x in (conv.kernel_size, conv.stride, conv.dilation))
    pads = _padding(conv)
    same = _pads_as_same(conv)
    square = all(len(each) == 1 for each in (sides, strides, dilations)) and (same or pads)
    if not square or conv.padding_mode != "zeros" or (same and dilations != {1}):
        raise ConfigError(
            f"{name}: {conv} can't have standardized weights, which are for kernels with one side, "
            "one stride and zeros alike on all ends; use a recipe with plain convolutions"
        )
    return Kernel(
        dims=len(conv.kernel_size),
        inputs=conv.in_channels,
        outputs=conv.out_channels,
        side=sides.pop(),
        stride=strides.pop(),
        groups=conv.groups,
        bias=conv.bias is not None,
        same=same,
        padding=None if same else pads.pop(),
        dilation=dilations.pop(),
    )


def _padding(conv: Conv) -> set[int]:
    """Return the numbers of zeros at a convolution's ends; empty where ends of a side differ."""
    if conv.padding == "valid":
        return {0}
    if not isinstance(conv.padding, str):
        return set(conv.padding)
    both = {d * (k - 1) for d, k in zip(conv.dilation, conv.kernel_size, strict=True)}
    return set() if any(zeros % 2 for zeros in both) else {zeros // 2 for zeros in both}


def _pads_as_same(conv: Conv) -> bool:
    """Return whether a convolution pads by the size of its input, as TensorFlow and timm do."""
    return getattr(conv, "same_pad", False) or type(conv).__name__ == "Conv2dSame"


def plain_again(name: str, conv: Conv) -> nn.Module:
    """Return PyTorch's convolution for one that standardizes its weights, which it takes over.

    Raises:
        ConfigError: it pads as TensorFlow does, which PyTorch's can't.
    """
    if _pads_as_same(conv):
        raise ConfigError(
            f"{name}: {conv} pads as TensorFlow does, which plain convolutions can't; use a recipe "
            "with standardized ones"
        )
    made = unset(
        CONVOLUTIONS[len(conv.kernel_size)],
        conv.in_channels,
        conv.out_channels,
        kernel_size=conv.kernel_size,
        stride=conv.stride,
        padding=conv.padding,
        dilation=conv.dilation,
        groups=conv.groups,
        bias=conv.bias is not None,
    )
    return with_weights(made, conv)


@torch.no_grad()
def with_weights(made: nn.Module, conv: Conv) -> nn.Module:
    """Copy a convolution's weights and biases to another of its shape, and return that."""
    made.get_parameter("weight").copy_(conv.weight)
    if conv.bias is not None:
        made.get_parameter("bias").copy_(conv.bias)
    return made


def not_in_place(module: nn.Module) -> None:
    """Let no layer overwrite its input: what was in front of it may have been taken away."""
    for layer in module.modules():
        if getattr(layer, "inplace", False):
            layer.inplace = False  # pyrefly: ignore


def likely_shape(module: nn.Module) -> Sequence[int]:
    """Return the shape of an example by a network's first layer, with sides of 32.

    Raises:
        ConfigError: it has neither a convolution nor a linear layer.
    """
    for layer in module.modules():
        if isinstance(layer, tuple(CONVOLUTIONS.values())):
            return layer.in_channels, *[32] * len(layer.kernel_size)
        if isinstance(layer, nn.Linear):
            return (layer.in_features,)
    raise ConfigError("this network has no convolution or linear layer; say shape=(channels, ...)")
