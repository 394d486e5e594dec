"""Under Flower, the files of components are those of the app, whatever lies elsewhere."""

from fl.config import Experiment
from fl.messages import run_config


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
