"""Under Flower, the files of components are those of the app, whatever lies elsewhere."""

from fl.config import Experiment
from fl.messages import run_config


def test_flower_s_default_recipe_leaves_an_own_network_as_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.py").write_text("def net(shape, classes):\n    return None\n")
    own = {"network.kind": "model.py:net"}
    assert run_config.experiment({"recipe": "auto", **own}) == Experiment.from_flat(own)
    assert run_config.experiment({"recipe": "auto", **own}).recipe == "own"
    assert run_config.experiment({"recipe": "zc-swish", **own}).recipe == "zc-swish"
    assert run_config.experiment({"recipe": "auto"}).identity == Experiment().identity


def test_the_app_s_own_file_wins(tmp_path, monkeypatch):
    app, here = tmp_path / "apps" / "me.mine.0.1.0.12345678", tmp_path / "here"
    for folder, text in ((app, "app"), (here, "here")):
        folder.mkdir(parents=True)
        source = f"def net(shape, classes):\n    return {text!r}\n"
        (folder / "model.py").write_text(source)
    monkeypatch.setenv("FLWR_HOME", str(tmp_path))
    monkeypatch.chdir(here)
    flat = {"network.kind": "model.py:net", "rounds": 3}
    assert run_config.experiment(flat) == Experiment.from_flat(flat)
    assert "'here'" in run_config.experiment(flat).components
    monkeypatch.syspath_prepend(app)
    found = run_config.experiment(flat)
    assert (found.network.kind, found.rounds) == ("model.py:net", 3)
    assert "'app'" in found.components
