"""All private names of PyTorch that fednf uses: those of its ahead-of-time compiler.

No other file of `fl`, `strategies`, `partitions` and `experiments` uses a name of `torch` that
begins with an underscore; `tests/fl/vectorized/test_torch_internals.py` checks that. The names were
checked with torch 2.10 to 2.13; `pyproject.toml` pins the range.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor


def compile_package(
    program: "torch.export.ExportedProgram", package: Path, options: dict[str, str]
) -> None:
    """Compile an exported program into a package, which is a zip file.

    Args:
        program: what to compile.
        package: the file to write.
        options: of the compiler's front end.
    """
    with torch._functorch.config.patch(options):
        torch._inductor.aoti_compile_and_package(program, package_path=str(package))


def load_package(folder: Path) -> Callable[[list[Tensor]], list[Tensor]]:
    """Return the program that an unpacked package holds.

    PyTorch's `aoti_load_package` is not used for two reasons. It unpacks the package into the
    folder for temporary files, where it stays if the process is killed. And the program that it
    returns parses JSON at every call.

    Args:
        folder: where the package was unpacked.

    Raises:
        RuntimeError: there is no package, or none that this machine can load.
    """
    return torch._C._aoti.AOTIModelPackageLoader(str(folder), "model", False, 1, -1).run
