"""Convolutions of micro-batches in C++, for lanes that each have images and weights of their own.

At a batch of one PyTorch's convolutions spend their time on set-up and on copies of patches.
``native.cpp`` is compiled on first use, for this processor, into the user's cache. `why_not` does
that; without a C++ compiler it says so, and nothing else here may be called. Flower's bundles
hold no C++ either: there PyTorch's convolutions serve.

The operators run on one thread. The result for a lane depends on nothing but its own images and
weights: not on the other lanes, their number or its place among them.
"""

import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import platformdirs
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from fl.files import write_whole

_SOURCES = [Path(__file__).with_suffix(suffix) for suffix in (".cpp", ".h")]
_FLAGS = ("-O3", "-march=native", "-std=c++20", "-shared", "-fPIC", "-w")
_LARGEST = 7
_CONVOLUTIONS = (F.conv1d, F.conv2d)
_IMAGES, _CHANNELS = 8, 64
Sizes = int | Sequence[int]


@functools.cache
def why_not() -> str | None:
    """Compile unless the cache has it, load, and return None; or the reason why not, in a line."""
    try:
        library = _place()
        if not library.is_file():
            write_whole(library, _compile())
        torch.ops.load_library(library)
    except (OSError, RuntimeError) as problem:
        return str(problem)
    _register()
    return None


def supports(
    x: Tensor,
    w: Tensor,
    bias: Tensor | None = None,
    stride: Sizes = 1,
    padding: Sizes | str = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> bool:
    """Return whether `conv` takes these arguments of ``F.conv1d`` or ``F.conv2d``.

    It does for float32 on the CPU, one or two axes, kernels with odd sides up to 7, a stride of 1
    or 2 and a padding below the smallest side (both the same along all axes), no dilation, one
    group. Whether it is faster is another question.
    """
    sides, step, zeros = w.shape[2:], _same(stride), _same(padding)
    return (
        x.dim() == w.dim() and len(sides) in (1, 2)
        and all(t.dtype == torch.float32 and t.device.type == "cpu" for t in (x, w))
        and all(side % 2 == 1 and side <= _LARGEST for side in sides)
        and step in (1, 2) and zeros is not None and 0 <= zeros < min(sides)
        and all(side <= n + 2 * zeros for side, n in zip(sides, x.shape[2:], strict=True))
        and _same(dilation) == 1 and groups == 1
    )  # fmt: skip


def conv(
    x: Tensor,
    w: Tensor,
    bias: Tensor | None = None,
    stride: Sizes = 1,
    padding: Sizes | str = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> Tensor:
    """Return what ``F.conv1d`` or ``F.conv2d`` does, for arguments that `supports` accepts.

    Under `torch.vmap` lanes of images and of weights become lanes of one operator. Gradients are
    had from ``torch.autograd.grad`` outside of `torch.vmap`; there are none of gradients.

    Shapes: x (B, C, *S), w (O, C, *k), bias (O,); the result (B, O, *S').
    """
    lane = x.unsqueeze(0), w.unsqueeze(0)
    y = torch.ops.fednf.lane_conv(*lane, _same(stride), _same(padding)).squeeze(0)
    return y if bias is None else y + bias.view(-1, *[1] * (w.dim() - 2))


class Convolutions(TorchFunctionMode):
    """Within it, `conv` stands in for PyTorch's convolutions where it is faster.

    That is with up to 64 channels and 8 images. GFLOP/s forward and backward of `conv` and of
    PyTorch's grouped convolution, 8 lanes of one image, 3×3, one core of a virtual AMD EPYC (AVX2)
    under load: 34 and 9 from 1 to 16 channels at 28×28; 75 and 49 from 16 to 16 at 28×28; 69 and 54
    from 32 to 32 at 14×14; 40 and 38 from 64 to 64 at 8×8; with 4 lanes of 8 images there 70 and
    69; 16 and 21 (not grouped, 25) from 128 to 128 at 4×4.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in _CONVOLUTIONS and len(args) > 1 and supports(*args, **kwargs):
            x, w = args[:2]
            if len(x) <= _IMAGES and max(w.shape[:2]) <= _CHANNELS:
                return conv(*args, **kwargs)
        return func(*args, **kwargs)


def _same(sizes: Sizes | str) -> int | None:
    """Return the size that is the same along all axes, or None."""
    if isinstance(sizes, int | str):
        return sizes if isinstance(sizes, int) else None
    return sizes[0] if len(set(sizes)) == 1 else None


# ---- The library ----------------------------------------------------------------------------
def _place() -> Path:
    """Return where in the user's cache the library for this source, PyTorch and processor is."""
    missing = [source.name for source in _SOURCES if not source.is_file()]
    if missing:
        raise OSError(f"{', '.join(missing)} was not shipped with fl/native.py, as in a bundle")
    digest = hashlib.sha256()
    for part in (torch.__version__, *_FLAGS, *_compiler(), _processor()):
        digest.update(f"{part}\n".encode())
    for source in _SOURCES:
        digest.update(source.read_bytes())
    return platformdirs.user_cache_path("fednf") / f"native-{digest.hexdigest()[:16]}.so"


def _processor() -> str:
    """Return what -march=native goes by; a home folder may be shared by unlike machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.platform() + platform.processor()
    return "".join(sorted({line for line in lines if line.startswith(("model", "flags", "Feat"))}))


def _compiler() -> list[str]:
    """Return the command of a C++ compiler: what CXX says, or the first there is."""
    if "CXX" in os.environ:
        return shlex.split(os.environ["CXX"])
    found = [name for name in ("c++", "g++", "clang++") if shutil.which(name)]
    if not found:
        raise OSError("no C++ compiler was found; install g++ or clang++, or say which in CXX")
    return found[:1]


def _compile() -> bytes:
    """Return the library. Nothing but PyTorch's headers and a compiler is needed."""
    root = Path(torch.__file__).parent
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "native.so"
        links = (f"-L{root / 'lib'}", "-ltorch", "-ltorch_cpu", "-lc10")
        command = [*_compiler(), *_FLAGS, f"-I{root / 'include'}", _SOURCES[0], "-o", out, *links]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            lines = done.stderr.strip().splitlines()
            telling = [line for line in lines if "error" in line] or lines[-1:]
            raise RuntimeError(f"{command[0]} failed: {' '.join(telling[:1])}")
        return out.read_bytes()


# ---- What PyTorch has to know of the operators ----------------------------------------------
def _register() -> None:
    """Tell autograd, vmap and tracing about the operators."""
    name = "fednf::lane_conv"
    torch.library.register_fake(name, _fake)
    torch.library.register_fake(f"{name}_backward", _fake_backward)
    torch.library.register_autograd(name, _backward, setup_context=_save)
    torch.library.register_vmap(name, _vmap)


def _fake(x: Tensor, w: Tensor, stride: int, padding: int) -> Tensor:
    sizes = zip(x.shape[3:], w.shape[3:], strict=True)
    out = [(n + 2 * padding - side) // stride + 1 for n, side in sizes]
    return x.new_empty([*x.shape[:2], w.shape[1], *out])


def _fake_backward(
    grad: Tensor, x: Tensor, w: Tensor, stride: int, padding: int, needs_x: bool
) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape if needs_x else [0]), w.new_empty(w.shape)


def _save(ctx, inputs, output) -> None:
    x, w, ctx.stride, ctx.padding = inputs
    ctx.save_for_backward(x, w)


def _backward(ctx, grad: Tensor):
    x, w = ctx.saved_tensors
    needs_x = ctx.needs_input_grad[0]
    of_x, of_w = torch.ops.fednf.lane_conv_backward(grad, x, w, ctx.stride, ctx.padding, needs_x)
    return of_x if needs_x else None, of_w, None, None


def _vmap(info, in_dims, x: Tensor, w: Tensor, stride: int, padding: int):
    """Make lanes of lanes: (L, K, ...) is (L·K, ...); what has no lanes is the same in all."""
    both = zip((x, w), in_dims[:2], strict=True)
    x, w = (
        t.expand(info.batch_size, *t.shape) if dim is None else t.movedim(dim, 0) for t, dim in both
    )
    y = torch.ops.fednf.lane_conv(x.flatten(0, 1), w.flatten(0, 1), stride, padding)
    return y.unflatten(0, (info.batch_size, -1)), 0
