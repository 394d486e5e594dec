"""A notebook: what its cells define are components, and its workers need no importable program."""

import json
from pathlib import Path

import pytest

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")

CELLS = [
    "import fl\nimport torch\nfrom torch import nn\nimport torch.nn.functional as F",
    "SLOPE = 0.1\nSIZES = [4, 8]\n\ndef act(x):\n    return F.leaky_relu(x, SLOPE)",
    "%time\nclass Net(nn.Module):\n    pass",
    "class Net(nn.Module):\n"
    "    def __init__(self, shape, classes, width: int = 5):\n"
    "        super().__init__()\n"
    "        self.first = nn.Linear(784, width + SIZES[0])\n"
    "        self.classifier = nn.Linear(width + SIZES[0], classes)\n\n"
    "    def forward(self, x):\n"
    "        return self.classifier(act(self.first(x.flatten(1))))",
    "knobs = {'network.kind': Net, 'network.options.width': 3, 'partition.clients': 5,\n"
    "         'sampling.clients': 4, 'rounds': 2, 'engine': 'sequential'}\n"
    "one = fl.run(knobs, out='one')\n"
    "two = fl.run(knobs, out='two', workers=2)",
    "import json\n"
    "rows = fl.results('.')\n"
    "print(json.dumps([one['model_sha256'], two['model_sha256'], rows[0]['network.kind']]))",
]


@pytest.mark.slow
def test_a_network_of_the_cells_trains_here_and_in_workers(tmp_path):
    cells = [nbformat.v4.new_code_cell(text) for text in CELLS]
    notebook = nbformat.v4.new_notebook(cells=cells)
    resources = {"metadata": {"path": str(tmp_path)}}
    client = nbclient.NotebookClient(notebook, timeout=300, resources=resources)
    client.execute()
    one, two, name = json.loads(notebook.cells[-1].outputs[0]["text"])
    assert one == two
    assert name.startswith("cells_")
    source = (Path(tmp_path) / "one" / "components" / name.partition(":")[0]).read_text()
    assert "SIZES = [4, 8]" in source
    assert "%time" not in source
