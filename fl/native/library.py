"""The operators' library: compiled on first use, for this processor, into the user's cache."""

import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

import platformdirs
import torch

from fl.files import write_whole

_FOLDER = Path(__file__).parent
_COMPILED = ("convolutions.cpp", "pools.cpp", "standardize.cpp")
_SOURCES = [*(_FOLDER / name for name in _COMPILED), *sorted(_FOLDER.glob("*.h"))]
_FLAGS = ("-O3", "-march=native", "-std=c++20", "-shared", "-fPIC", "-w")


def load() -> None:
    """Compile unless the cache has it, and load.

    Raises:
        OSError: there is no compiler, or nothing to compile, as in Flower's bundles.
        RuntimeError: the compiler failed.
    """
    library = _place()
    if not library.is_file():
        write_whole(library, _compile())
    torch.ops.load_library(library)


def _place() -> Path:
    """Return where in the user's cache the library for this source, PyTorch and processor is."""
    missing = [source.name for source in _SOURCES if not source.is_file()]
    if missing:
        raise OSError(f"{', '.join(missing)} was not shipped with fl/native, as in a bundle")
    digest = hashlib.sha256()
    for part in (torch.__version__, *_FLAGS, *compiler(), processor()):
        digest.update(f"{part}\n".encode())
    for source in _SOURCES:
        digest.update(source.read_bytes())
    return platformdirs.user_cache_path("fednf") / f"native-{digest.hexdigest()[:16]}.so"


def processor() -> str:
    """Return what -march=native goes by; a home folder may be shared by unlike machines."""
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
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "native.so"
        links = (f"-L{root / 'lib'}", "-ltorch", "-ltorch_cpu", "-lc10")
        *others, last = (_FOLDER / name for name in _COMPILED)
        # As one, since most of it is reading PyTorch's headers.
        sources = [*(word for other in others for word in ("-include", other)), last]
        command = [*compiler(), *_FLAGS, f"-I{root / 'include'}", *sources, "-o", out, *links]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            lines = done.stderr.strip().splitlines()
            telling = [line for line in lines if "error" in line] or lines[-1:]
            raise RuntimeError(f"{command[0]} failed: {' '.join(telling[:1])}")
        return out.read_bytes()
