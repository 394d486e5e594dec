"""Components: names, sources and options, as a user's file has them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import fl
from fl.config import Experiment
from fl.config.components import find, gather, is_component, named, sources
from fl.config.parsing import ConfigError

NET = """
import fl
import torch
from helper import twice

class Net(torch.nn.Module):
    def __init__(self, shape, classes, width: int = 8, *, slope: float = 0.1):
        super().__init__()
        self.classifier = torch.nn.Linear(twice(shape[1] * shape[2] // 2), classes)
        self.width, self.slope = width, slope

    def forward(self, x):
        return self.classifier(x.flatten(1))

def deal(labels, clients, rng, even=True):
    return [range(0)] * clients

VALUE = 3
"""
HELPER = "def twice(x):\n    return 2 * x\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a user's two files, and nothing else on the way to them."""
    (tmp_path / "my.py").write_text(NET)
    (tmp_path / "helper.py").write_text(HELPER)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(flat) -> str:
    with pytest.raises(ConfigError) as error:
        Experiment.from_flat(flat)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("name", ["my.py:Net", "a/b.py:Net", "/x/my.py:a.b", "pack.mod:Net", "m:f"])
def test_what_is_a_component(name):
    assert is_component(name)


@pytest.mark.parametrize(
    "name",
    ["plainnet", "hf:x", "medmnist:a", "hf:resnet18", "kept:a", "my.py", "my.py:", ""],
)
def test_what_is_none(name):
    assert not is_component(name)


def test_the_source_and_what_it_imports_are_part_of_the_identity(folder):
    first = Experiment.from_flat({"network.kind": "my.py:Net"})
    assert sources.parse(first.components) == {"my.py": NET, "helper.py": HELPER}
    assert Experiment.from_flat({"network.kind": "my.py:Net"}) == first
    (folder / "helper.py").write_text(HELPER + "\n")
    second = Experiment.from_flat({"network.kind": "my.py:Net"})
    assert second.identity != first.identity
    change = sources.change(first.components, second.components)
    assert change == "helper.py has changed, at first in line 3"


def test_an_experiment_without_components_has_the_identity_that_it_had():
    known = "1fa6304268a5b6a31b8f33900b47e107039dd6b13470771eae1dde2aed6a3d33"
    assert Experiment().identity == known


def test_where_a_file_lies_changes_nothing(folder, monkeypatch):
    here = Experiment.from_flat({"network.kind": "my.py:Net"})
    monkeypatch.chdir("/")
    assert Experiment.from_flat({"network.kind": f"{folder}/my.py:Net"}) == here
    with monkeypatch.context() as patch:
        patch.syspath_prepend(folder)
        assert Experiment.from_flat({"network.kind": "my.py:Net"}) == here


def test_knobs_bring_the_source_along(folder):
    knobs = Experiment.from_flat({"network.kind": "my.py:Net", "network.options.width": 4})
    flat = json.dumps(knobs.to_flat())
    (folder / "my.py").unlink()
    (folder / "helper.py").unlink()
    program = (
        "import json, sys\nfrom fl.config import Experiment\n"
        "knobs = Experiment.from_flat(json.loads(sys.stdin.read()))\n"
        "net = knobs.component('network.kind')((1, 4, 4), 3, **knobs.network.given)\n"
        "print(knobs.identity, net.width, net.classifier.in_features)"
    )
    run = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(fl.__file__).parents[1],
        input=flat,
        text=True,
        capture_output=True,
        check=True,
    )
    assert run.stdout.split() == [knobs.identity, "4", "16"]


def test_equal_experiments_have_the_same_object(folder):
    first, second = (Experiment.from_flat({"network.kind": "my.py:Net"}) for _ in range(2))
    assert first.component("network.kind") is second.component("network.kind")
    assert first.component("strategy.kind") is None


def test_replacing_other_knobs_keeps_the_source_and_replacing_the_component_does_not(folder):
    knobs = Experiment.from_flat({"network.kind": "my.py:Net", "network.options.width": 4})
    (folder / "my.py").write_text("raise OSError")
    assert knobs.replace({"seed": 2}).components == knobs.components
    plain = knobs.replace({"network.kind": "cnn"})
    assert (plain.components, plain.network.options) == ("", "")
    assert plain == Experiment.from_flat({"network.kind": "cnn"})


def test_options_come_as_keys_tables_or_text(folder):
    name = {"network.kind": "my.py:Net"}
    wanted = {"width": 4, "slope": 0.5}
    for options in (
        {"network.options.width": 4, "network.options.slope": 0.5},
        {"network.options": '{"slope": 0.5, "width": 4}'},
        {"network.options": '{"slope": 0.5}', "network.options.width": 4},
    ):
        assert Experiment.from_flat({**name, **options}).network.given == wanted
    made = Experiment(network={"kind": "my.py:Net", "options": wanted})  # pyrefly: ignore
    assert made.network.given == wanted
    assert made.replace({"network.options.width": 5}).network.given == {**wanted, "width": 5}


@pytest.mark.parametrize(
    ("flat", "said"),
    [
        (
            {"network.kind": "my.py:Nett"},
            "network.kind=my.py:Nett: my.py has no Nett; did you mean Net?",
        ),
        ({"network.kind": "mine.py:Net"}, "no file mine.py here"),
        ({"network.kind": "no.such:Net"}, "no module no.such"),
        ({"network.kind": "plain"}, "or the name of a component: path/file.py:name"),
        ({"network.kind": "my.py:twice"}, "my.py has no"),
        ({"network.kind": "helper.py:twice"}, "helper.py:1: twice(x) is called as"),
        ({"network.kind": "my.py:Net", "network.options.widht": 1}, "did you mean width?"),
        ({"network.kind": "my.py:Net", "network.options.width": "x"}, "network.options.width='x'"),
        ({"network.options.width": 1}, "network.kind names no component"),
        ({"partition.kind": "my.py:deal", "partition.options.odd": 1}, "known: even"),
        ({"strategy.kind": "my.py:VALUE", "strategy.options.a": 1}, "it has none"),
        ({"network.options": "[1]"}, "should be a table of options"),
    ],
)
def test_what_is_wrong_is_one_line(folder, flat, said):
    (folder / "helper.py").write_text("def twice(x):\n    return 2 * x\n")
    if flat.get("network.kind") == "my.py:twice":
        (folder / "my.py").write_text("pass\n")
    assert said in refused(flat)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import torch\n\n1 / 0\n", "my.py:3: ZeroDivisionError"),
        ("from helper import nothing\n", "my.py:1: ImportError"),
        ("def f(:\n", "my.py:1: invalid syntax"),
        ("import not_there\n", "my.py:1: ModuleNotFoundError"),
        ("raise SystemExit(3)\n", "my.py:1: SystemExit"),
    ],
)
def test_a_file_that_fails_is_one_line_with_its_place(folder, text, said):
    (folder / "my.py").write_text(text)
    assert said in refused({"network.kind": "my.py:Net"})


def test_two_files_of_one_name_are_refused(folder):
    (folder / "other").mkdir()
    (folder / "other" / "my.py").write_text(NET + "\n")
    (folder / "other" / "helper.py").write_text(HELPER)
    flat = {"network.kind": "my.py:Net", "partition.kind": "other/my.py:deal"}
    assert "another component has a file my.py" in refused(flat)


def test_helpers_of_one_name_do_not_meet(folder):
    (folder / "other").mkdir()
    (folder / "other" / "my.py").write_text("from helper import twice\n")
    (folder / "other" / "helper.py").write_text("def twice(x):\n    return 3 * x\n")
    found = []
    for name in ("my.py:twice", "other/my.py:twice"):
        values, text = gather({"data.name": name}, "")
        found.append(find("data.name", values["data.name"], text)(1))
    assert found == [2, 3]
    assert "helper" not in sys.modules


def test_a_package_with_relative_imports(folder, monkeypatch):
    package = folder / "pack" / "nets"
    package.mkdir(parents=True)
    (folder / "pack" / "__init__.py").write_text("")
    (package / "__init__.py").write_text("from .small import Net\n")
    (package / "small.py").write_text(
        "from ..sizes import SIZE\nNet = lambda shape, classes: SIZE\n"
    )
    (folder / "pack" / "sizes.py").write_text("SIZE = 5\n")
    monkeypatch.syspath_prepend(folder)
    knobs = Experiment.from_flat({"network.kind": "pack.nets:Net"})
    files = {"pack/__init__.py", "pack/nets/__init__.py", "pack/nets/small.py", "pack/sizes.py"}
    assert sources.parse(knobs.components).keys() == files
    again = Experiment.from_flat(knobs.to_flat())
    assert again.component("network.kind")((1,), 2) == 5


def test_an_installed_package_is_known_by_its_version():
    from importlib.metadata import version

    knobs = Experiment.from_flat({"network.kind": "safetensors.torch:save"})
    assert sources.parse(knobs.components) == {"safetensors": version("safetensors")}


def test_folders_named_as_ours_are_the_user_s_own_in_his_file(folder):
    (folder / "strategies").mkdir()
    (folder / "strategies" / "__init__.py").write_text("MINE = 7\n")
    (folder / "my.py").write_text("from strategies import MINE\nimport fl\nS = fl.Strategy\n")
    knobs = Experiment.from_flat({"strategy.kind": "my.py:MINE"})
    assert knobs.component("strategy.kind") == 7


def test_objects_get_the_name_of_where_they_are_defined(folder, monkeypatch):
    monkeypatch.syspath_prepend(folder)
    import my  # pyrefly: ignore

    try:
        assert named(my.Net) == f"{folder}/my.py:Net"
        assert named("my.py:Net") == "my.py:Net"
        knobs = Experiment.from_flat({"network.kind": my.Net})
        assert knobs == Experiment.from_flat({"network.kind": "my.py:Net"})
        with pytest.raises(ConfigError, match="inside a function"):
            named(lambda shape, classes: None)
        with pytest.raises(ConfigError, match="is no component"):
            named(3)
    finally:
        del sys.modules["my"], sys.modules["helper"]


def test_every_public_name_is_there_and_typed():
    text = (Path(fl.__file__)).read_text()
    for name in fl.__all__:
        assert getattr(fl, name) is not None
        assert f"import {name} as {name}\n" in text
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = fl.nothing  # pyrefly: ignore
