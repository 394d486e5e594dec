"""`fednf new DIR` makes a project that runs at once, here, as a study, under Flower, on devices."""

import json
import subprocess
import tomllib
from pathlib import Path

import pytest

import fl
from fl.config import Experiment
from fl.config.parsing import flatten, read_toml
from fl.server.journal import Journal
from tests.experiments.answers import refused
from tests.fl.simulation.test_flwr_run import flower_home as flower_home
from tests.fl.simulation.test_flwr_run import wait_for
from tests.test_docs import commands

PAGE = Path(fl.__file__).parents[1] / "docs" / "guide" / "new-project.md"


@pytest.fixture
def project(fednf, tmp_path, monkeypatch):
    """Make a project and go there."""
    done = fednf("new", "my-project")
    assert (done.status, done.err) == (0, "")
    monkeypatch.chdir(tmp_path / "my-project")
    return tmp_path / "my-project"


@pytest.mark.slow
def test_the_guide_can_be_followed_word_by_word(fednf, tmp_path, monkeypatch):
    made, run, study, deploy = commands(PAGE)
    told = fednf(*made)
    assert [tuple(line.split()) for line in told.lines[1:]] == [
        ("cd", "my-project"),
        ("fednf", *run),
        ("fednf", *study),
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["my-project"]
    monkeypatch.chdir("my-project")
    assert fednf(*run).status == 0
    done = fednf(*study, "--jobs", "1", "--json")
    assert done.status == 0, done.err
    assert json.loads(done.lines[-1])["runs"] == 4
    headers = [json.loads(path.read_text()) for path in Path().glob("runs/**/experiment.json")]
    assert {header["knobs"]["network.kind"] for header in headers} == {"model.py:Net"}
    assert {json.loads(h["knobs"]["network.options"])["width"] for h in headers} == {4, 16}
    assert fednf(*deploy).status == 0
    assert "class ScaledReLU" in (tmp_path / "site" / "run.toml").read_text()


def test_flower_has_the_knobs_of_the_experiment(project):
    told = tomllib.loads((project / "pyproject.toml").read_text())
    knobs = Experiment.from_flat(flatten(told["tool"]["flwr"]["app"]["config"]))
    assert knobs == Experiment.from_toml("experiment.toml")
    assert told["project"]["name"] == "my-project"


def test_flower_takes_the_folder_as_an_app(project):
    """What Flower's own command checks before it sends an app anywhere."""
    from flwr.cli.config_utils import load_and_validate
    from flwr.common.config import fuse_dicts, get_project_config

    (project / "runs").mkdir()
    (project / "runs" / "large.json").write_text(" " * 2_000_000)  # Flower bundles no such file
    load_and_validate(project / "pyproject.toml")
    config = flatten(get_project_config(project)["tool"]["flwr"]["app"]["config"])
    fuse_dicts(config, read_toml(project / "experiment.toml"))  # refuses unknown keys
    from flwr.cli.build import build_fab_from_disk

    assert len(build_fab_from_disk(project)) < 50_000


BAD = {
    "here": "here exists; choose another folder",
    "3d": "'3d' can't be a Flower app's name",
    "my_project": "letters, digits and hyphens",
    "a" * 33: "32 characters at most",
    "file/project": "file",
}


@pytest.mark.parametrize("name", BAD)
def test_what_can_t_be_is_refused_in_one_line(fednf, tmp_path, name):
    (tmp_path / "here").mkdir()
    (tmp_path / "file").write_text("")
    done = fednf("new", name)
    if name.startswith("file"):
        assert (done.status, done.err.count("\n")) == (1, 1)
    else:
        assert BAD[name] in refused(done)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "here"]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds processes in /proc")
def test_flwr_run_ends_with_the_same_model(fednf, project, flower_home):
    """Flower is started in a folder that has another `model.py`, which must not count."""
    done = fednf("run", "--config", "experiment.toml", "--set", "engine=sequential", "--json")
    elsewhere = project.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "model.py").write_text("raise RuntimeError('of another project')\n")
    run = project.parent / "flower"
    settings = f"engine='sequential' run.dir='{run}'"
    cpus = "num-supernodes=10 client-resources-num-cpus=1 init-args-num-cpus=2"
    subprocess.run(
        [
            *("flwr", "run", str(project), "--stream"),
            *("--run-config", settings, "--federation-config", cpus),
        ],
        cwd=elsewhere,
        env={**flower_home, "PYTHONPATH": str(PAGE.parents[2])},  # where fednf is
        check=True,
        timeout=300,
    )
    flower = wait_for(Journal(run), 60)
    assert flower["model_sha256"] == json.loads(done.lines[-1])["model_sha256"]
