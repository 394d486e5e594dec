"""The house itself: floors, sizes, defaults, what a device gets."""

import ast
import io
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import fl
from fl.config import Experiment
from fl.config.parsing import flatten
from fl.nn import RECIPES

ROOT = Path(fl.__file__).parent.parent
ROOMS = ("fl", "strategies", "partitions", "experiments")
SOURCES = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_flower_s_defaults_are_ours():
    told = flatten(PYPROJECT["tool"]["flwr"]["app"]["config"])
    assert told == {**Experiment().to_flat(), "recipe": "auto"}
    assert Experiment.from_flat(told) == Experiment()


def test_the_version_is_said_once_everywhere():
    assert PYPROJECT["project"]["version"] == fl.__version__
    assert f"## {fl.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"version: {fl.__version__}" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


def test_the_default_recipe_exists():
    assert Experiment().recipe in RECIPES


def test_every_package_is_pinned():
    pins = (ROOT / "constraints.txt").read_text().splitlines()
    assert "torch==2.13.0" in pins
    assert all(line.startswith("#") or "==" in line for line in pins)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_over_300_lines_and_no_function_over_40(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 300
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            documented = isinstance(node.body[0], ast.Expr) and ast.get_docstring(node)
            code = node.body[1:] if documented else node.body
            length = (code[-1].end_lineno - code[0].lineno + 1) if code else 0
            assert length <= 40, f"{node.name} has {length} lines"


def entries(folder: Path) -> list[str]:
    """Return the names in a folder that a reader meets: no caches, no __init__.py, no marker."""
    unread = (".", "__init__", "__pycache__", "py.typed")
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith(unread))


def test_no_folder_has_more_than_12_entries():
    crowded = {}
    for room in (*ROOMS, "docs", "tests"):
        for folder, inner, _ in os.walk(ROOT / room):
            inner[:] = [name for name in inner if name in entries(Path(folder))]
            if len(found := entries(Path(folder))) > 12:
                crowded[str(Path(folder).relative_to(ROOT))] = found
    assert not crowded


def test_a_name_says_what_is_in_a_file():
    vague = {"utils", "util", "helpers", "helper", "common", "base", "misc"}
    paths = [path for room in (*ROOMS, "tests", "tools") for path in (ROOT / room).rglob("*.py")]
    names = {part for path in paths for part in path.relative_to(ROOT).with_suffix("").parts}
    assert not {name.strip("_") for name in names} & vague


def parameters(function: ast.FunctionDef) -> int:
    """Return how many parameters a function has, `self` and `cls` not counted."""
    has = function.args
    names = [one.arg for one in (*has.posonlyargs, *has.args, *has.kwonlyargs)]
    named = [name for name in names if name not in ("self", "cls")]
    return len(named) + (has.vararg is not None) + (has.kwarg is not None)


def test_at_most_six_functions_have_more_than_six_parameters():
    found = [
        f"{path.relative_to(ROOT)}: {node.name}"
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and parameters(node) > 6
    ]
    assert len(found) <= 6, found


PLANTED = {
    "partitions/iid.py": "import torch\n",
    "fl/training/loop.py": "import flwr.app\n",
    "fl/reproducibility/seeds.py": "from fl.server import journal\n",
    "strategies/serving/server.py": "from fl.messages import records\n",
    "fl/client/app.py": "import ray\n",
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_import_against_the_floors_is_caught(tmp_path, name):
    for room in ROOMS:
        shutil.copytree(ROOT / room, tmp_path / room, ignore=shutil.ignore_patterns("*.npz"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / name).write_text(f"{(tmp_path / name).read_text()}\n{PLANTED[name]}")
    linter = Path(sys.executable).with_name("lint-imports")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [linter, "--no-cache"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "BROKEN" in done.stdout


def loaded_by(statement: str) -> set[str]:
    code = f"{statement}; import sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return {name.partition(".")[0] for name in done.stdout.split()}


@pytest.mark.slow
def test_a_device_loads_no_plots_no_ray_and_no_studies():
    heavy = {"ray", "matplotlib", "experiments", "tests"}
    assert not loaded_by("import fl.client.app") & heavy
    assert loaded_by("import fl.client.app, matplotlib") & heavy == {"matplotlib"}


MADE = (
    "import torch; from fl.config import Experiment as E; from fl.data import Form; "
    "from fl.training import parameters; "
    "network = parameters.build_network(E(), torch.Generator(), Form((1, 8, 8), 3))"
)


@pytest.mark.slow
def test_a_network_is_made_without_the_compiler_and_its_algebra():
    assert not loaded_by(MADE) & {"sympy"}


@pytest.mark.slow
def test_lanes_are_differentiated_without_that_algebra():
    passed = f"{MADE}; from fl.vectorized.gradients import Examples, Gradients; "
    passed += "labels = torch.zeros(2, 1, dtype=torch.long); rows = network.weights.expand(2, -1); "
    passed += "images, ones = torch.zeros(2, 1, 1, 8, 8), torch.ones(2, 1); "
    passed += "examples = Examples(images, labels, ones, ones[:, 0]); "
    passed += "Gradients(network)(rows, {}, examples)"
    assert not loaded_by(passed) & {"sympy"}


@pytest.mark.slow
def test_the_bundle_holds_what_a_device_runs_and_is_small():
    from flwr.cli.build import build_fab_from_disk

    raw = build_fab_from_disk(ROOT)
    names = zipfile.ZipFile(io.BytesIO(raw)).namelist()
    assert len(raw) < 1_100_000  # Flower stores without compression; half of it is documentation
    rooms = {name.partition("/")[0] for name in names if "/" in name}
    assert rooms - {".info"} == {"fl", "strategies", "partitions"}
    left_out = {ROOT / "experiments", ROOT / "fl" / "data" / "sets"}
    left_out |= {ROOT / "fl" / "simulation", ROOT / "fl" / "vectorized"}
    expected = {str(p.relative_to(ROOT)) for p in SOURCES if not left_out & {p, *p.parents}}
    assert {name for name in names if name.endswith(".py")} == expected
