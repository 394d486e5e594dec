"""PyTorch's private names stand in one file."""

import ast
from pathlib import Path

import pytest

import fl

ROOT = Path(fl.__file__).parent.parent
THE_FILE = ROOT / "fl" / "vectorized" / "torch_internals.py"


def private_names(code: str) -> list[str]:
    """Return the names below `torch` that a file uses and that begin with an underscore."""
    found = []
    for node in ast.walk(ast.parse(code)):
        names = []
        if isinstance(node, ast.Import):
            names = [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{name.name}" for name in node.names]
        elif isinstance(node, ast.Attribute):
            names = [ast.unparse(node)]
        for name in names:
            first, *parts = name.split(".")
            public = all(part.startswith("__") or not part.startswith("_") for part in parts)
            if first == "torch" and not public:
                found.append(name)
    return found


@pytest.mark.slow
def test_pytorch_s_private_names_stand_in_one_file():
    rooms = ("fl", "strategies", "partitions", "experiments")
    paths = [path for room in rooms for path in sorted((ROOT / room).rglob("*.py"))]
    assert {path for path in paths if private_names(path.read_text())} == {THE_FILE}


@pytest.mark.parametrize(
    "code",
    ["torch._C._aoti.load()", "import torch._dynamo", "from torch import _inductor"],
)
def test_a_private_name_is_found(code):
    assert private_names(code)


def test_public_names_are_not_found():
    assert not private_names("import torch\ntorch.__version__\nself._x = torch.ones(3)")
