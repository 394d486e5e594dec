"""Group and batch normalization with a scale and a shift for each lane."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.fx import Graph

from fl.nn.layers.normalizers.batch_norm import padded_batch_norm
from fl.vectorized.operators import registration

BATCH_NORM = padded_batch_norm
"""The function that `batch_norm` replaces."""
REPLACED = (F.group_norm, torch.group_norm)
"""The functions of PyTorch that `group_norm` replaces."""
_NORMS = "fednf.group_norm.default", "fednf.batch_norm.default"
"""Our operators, as a graph names them; without the library there are none."""
_GRADIENTS = "fednf.group_norm_backward.default", "fednf.batch_norm_backward.default"


def supports(
    x: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> bool:
    """Return whether `group_norm` does what ``F.group_norm`` does with these arguments.

    It does for float32 on the CPU, with scale and shift, where groups have two values or more.
    """
    tensors = x, weight, bias
    return (
        all(t is not None and t.dtype == torch.float32 and t.device.type == "cpu" for t in tensors)
        and x.dim() > 1 and x.numel() > len(x) * num_groups and x.shape[1] % num_groups == 0
    )  # fmt: skip


def group_norm(
    x: Tensor,
    num_groups: int,
    weight: Tensor,
    bias: Tensor,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Tensor:
    """Return ``w·(x - μ)/√(σ² + eps) + b``, by the mean and the biased variance of groups.

    Under `torch.vmap`, lanes of images and of weights become lanes of one operator. Gradients are
    computed as for `fl.vectorized.operators.convolutions.conv`.

    Shapes: x (B, C, *S), w and b (C,); the result as x. Source: arXiv 1803.08494, section 3.1.
    """
    lane = x.unsqueeze(0), weight.unsqueeze(0), bias.unsqueeze(0)
    return torch.ops.fednf.group_norm(*lane, num_groups, eps, False).squeeze(0)


def takes(x: Tensor, *others: Tensor, eps: float) -> bool:
    """Return whether `batch_norm` takes these: all float32, on the CPU, and x not empty."""
    return x.numel() > 0 and all(
        t.dtype == torch.float32 and t.device.type == "cpu" for t in (x, *others)
    )


def batch_norm(
    x: Tensor, weight: Tensor, bias: Tensor, real: Tensor, *running: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return what `padded_batch_norm` of `fl.nn.layers.normalizers.batch_norm` does.

    Under `torch.vmap`, lanes become lanes of two operators, of which the second's gradient is that
    of both: the moments that it is given are to be those of x.
    """
    keeps = bool(running)
    mean, variance = running or (torch.zeros_like(weight), torch.zeros_like(weight))
    x, weight, bias, real, mean, variance = (
        t.unsqueeze(0) for t in (x, weight, bias, real, mean, variance)
    )
    with torch.no_grad():
        moments = torch.ops.fednf.batch_moments(x.detach(), mean, variance, real, keeps)
    y = torch.ops.fednf.batch_norm(x, weight, bias, moments, real, keeps, eps, False)
    mean, _, unbiased = moments.squeeze(0)
    return y.squeeze(0), mean, unbiased


def rectify(graph: Graph) -> None:
    """Let the operators of a traced pass do the ReLU right behind them, and its gradient.

    The last argument of these operators says whether they do. ReLU's own operators then go unused;
    before, no result in the graph may go unused.
    """
    for node in graph.nodes:
        if str(node.target) in _NORMS:
            first, *others = node.users
            if not others and first.target is torch.ops.aten.relu.default:
                node.args = *node.args[:-1], True
                first.replace_all_uses_with(node)
        elif str(node.target) in _GRADIENTS:
            grad, *own = node.args
            if grad.target is torch.ops.aten.threshold_backward.default:
                of_relu, norm, level = grad.args
                if level == 0 and str(norm.target) in _NORMS and norm.args == (*own[:-1], True):
                    node.args = of_relu, *norm.args


def _moments(x: Tensor, *others) -> Tensor:
    return x.new_empty(len(x), 3, x.shape[2])


def register() -> None:
    """Tell autograd, vmap and tracing about the operators."""
    registration.register("group_norm", registration.like_x, registration.like_tensors)
    registration.register("batch_norm", registration.like_x, registration.like_tensors)
    registration.register_constant("batch_moments", _moments)
