"""The operators' library: compiled on first use, for this processor, into the user's cache."""

import hashlib
import os
import platform
import shlex
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

import platformdirs
import torch

from fl.reproducibility.files import write_whole
from fl.reproducibility.temporary import MAKING, temporary_folder

_FOLDER = Path(__file__).parent
_KERNELS, _HEADERS = _FOLDER / "kernels", _FOLDER / "headers"
_OPERATORS = (
    "activations.cpp", "pools.cpp", "norms.cpp", "batch_norm.cpp", "standardize.cpp",
    "convolutions.cpp",
)  # fmt: skip
"""Compiled as one file, because reading PyTorch's headers takes much of the time."""
_SUMS = "sums.cpp"
"""Compiled at the same time as the others; it needs none of PyTorch's headers."""
_SOURCES = [_KERNELS / name for name in (*_OPERATORS, _SUMS)] + sorted(_HEADERS.rglob("*.h"))
_FLAGS = (
    "-O3", "-march=native", "-std=c++20", "-fPIC", "-fvisibility=hidden", "-w",
    "-fno-math-errno",  # else the compiler does not vectorize roots
)  # fmt: skip


def load() -> None:
    """Load the library, which is compiled first unless the user's cache has it.

    Raises:
        OSError: there is no compiler, or nothing to compile, as in Flower's bundles.
        RuntimeError: the compiler failed.
    """
    library = _library_path()
    if not library.is_file():
        write_whole(library, _compile())
    torch.ops.load_library(library)


def _library_path() -> Path:
    """Return the library's path in the user's cache, by source, PyTorch and processor."""
    missing = [source.name for source in _SOURCES if not source.is_file()]
    if missing:
        raise OSError(
            f"{', '.join(missing)} was not shipped with fl/vectorized/operators, as in a bundle"
        )
    digest = hashlib.sha256()
    for part in (torch.__version__, *_FLAGS, *compiler(), processor()):
        digest.update(f"{part}\n".encode())
    for source in _SOURCES:
        digest.update(source.read_bytes())
    return platformdirs.user_cache_path("fednf") / f"native-{digest.hexdigest()[:16]}.so"


def processor() -> str:
    """Return what -march=native depends on: different machines may share a home folder."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.platform() + platform.processor()
    return "".join(sorted({line for line in lines if line.startswith(("model", "flags", "Feat"))}))


def compiler() -> list[str]:
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
    *others, last = (_KERNELS / name for name in _OPERATORS)
    parts = (
        [*(word for other in others for word in ("-include", other)), last],
        [_KERNELS / _SUMS],
    )
    with temporary_folder(platformdirs.user_cache_path("fednf"), f"{MAKING}native-") as folder:
        objects = [folder / f"{number}.o" for number in range(len(parts))]
        _run(
            [
                *compiler(),
                *_FLAGS,
                f"-I{root / 'include'}",
                f"-I{_HEADERS}",
                f"-I{_HEADERS / 'convolutions'}",
                "-c",
                *sources,
                "-o",
                into,
            ]
            for sources, into in zip(parts, objects, strict=True)
        )
        out = folder / "native.so"
        links = (f"-L{root / 'lib'}", "-ltorch", "-ltorch_cpu", "-lc10")
        _run([[*compiler(), "-shared", *objects, "-o", out, *links]])
        return out.read_bytes()


def _run(commands: Iterable[Sequence[str | Path]]) -> None:
    """Run commands at the same time; if one fails, raise an error."""
    running = [subprocess.Popen(one, stderr=subprocess.PIPE, text=True) for one in commands]
    said = [process.communicate()[1] for process in running]
    for process, text in zip(running, said, strict=True):
        if process.returncode:
            lines = text.strip().splitlines()
            telling = [line for line in lines if "error" in line] or lines[-1:]
            raise RuntimeError(f"{compiler()[0]} failed: {' '.join(telling[:1])}")
