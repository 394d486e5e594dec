"""C++ headers include each other in one direction, and each of them is used."""

import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from fl.vectorized import operators

FOLDER = Path(operators.__file__).parent
INCLUDE = re.compile(r'^\s*#\s*include\s*"([^"]+)"', re.MULTILINE)


def includes(folder: Path) -> dict[str, set[str]]:
    """Return the headers that each C++ file includes, by file name."""
    files = [path for end in ("*.h", "*.cpp") for path in sorted(folder.rglob(end))]
    assert len({path.name for path in files}) == len(files)  # which are told apart by it
    return {path.name: set(INCLUDE.findall(path.read_text())) for path in files}


def test_headers_include_each_other_in_no_circle():
    graph = includes(FOLDER)
    assert graph["pixels.h"] == {"geometry.h", "memory.h", "sums.h"}
    order = list(TopologicalSorter(graph).static_order())
    assert set(order) == graph.keys()  # none is missing
    included = set().union(*graph.values())
    assert included == {name for name in graph if name.endswith(".h")}


def test_a_circle_would_be_found(tmp_path):
    (tmp_path / "memory.h").write_text('#include <vector>\n#include "pixels.h"\n')
    (tmp_path / "pixels.h").write_text('#include "memory.h"\n')
    with pytest.raises(CycleError):
        TopologicalSorter(includes(tmp_path)).prepare()
