"""Ray actors, on one machine and on a cluster, give the same model as one process."""

import os
import signal
from contextlib import closing

import pytest

from experiments.cli.main import main
from experiments.studies.workers import Job, work_with
from fl.config.parsing import ConfigError
from fl.server.journal import Journal
from fl.simulation import run
from tests.callbacks import EachRound

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("rays_leftovers")]

ray = pytest.importorskip("ray")
METHODS = {"strategy.kind": "fedadam", "client.lr-schedule": "cosine", "client.steps": 9}
METHODS |= {"client.accumulate": 2, "client.momentum": 0.9, "client.carry-momentum": True}
KNOBS = {"engine": "sequential", "recipe": "batchnorm", "sampling.clients": 4, "rounds": 2}


@pytest.fixture
def cluster():
    """Start a cluster of two nodes with a core each; both are raylets of this machine."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    made.add_node(num_cpus=1)
    made.wait_for_nodes()
    yield made
    made.shutdown()


def actors(**options):
    from fl.simulation.ray_pool import RayPool

    return closing(RayPool(**options))


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("knobs", [{"state.bn": "local"}, {"state.bn": "recalibrate", **METHODS}])
def test_ray_gives_the_same_model(tiny, tmp_path, size, knobs):
    knobs = tiny({**KNOBS, **knobs})
    expected = run(knobs, Journal(tmp_path / "inline"))
    journal = Journal(tmp_path / "ray")
    with actors(size=size) as pool:
        found = run(knobs, journal, pool=pool)
    assert found["model_sha256"] == expected["model_sha256"]
    assert found["final_loss"] == expected["final_loss"]
    assert (journal.header()["runtime"], journal.header()["engine"]["workers"]) == ("ray", size)


def test_an_actor_that_is_killed_costs_nothing(tiny, tmp_path):
    knobs = tiny({**KNOBS, "rounds": 3})
    expected = run(knobs, Journal(tmp_path / "inline"))
    with actors(size=2) as pool:

        def kill(line: dict) -> None:
            if line["round"] == 1:
                os.kill(ray.get(pool.process(0)), signal.SIGKILL)

        found = run(knobs, Journal(tmp_path / "ray"), pool=pool, callbacks=[EachRound(kill)])
    assert found["model_sha256"] == expected["model_sha256"]
    assert found["refused"] == 0


def test_a_machine_that_is_lost_costs_nothing(tiny, tmp_path, cluster):
    knobs = tiny({**KNOBS, "rounds": 4})
    expected = run(knobs, Journal(tmp_path / "inline"))
    with actors(address=cluster.address) as pool:
        assert pool.size == 2

        def remove(line: dict) -> None:
            if line["round"] == 2:
                cluster.remove_node(cluster.list_all_nodes()[1], allow_graceful=False)

        found = run(knobs, Journal(tmp_path / "ray"), pool=pool, callbacks=[EachRound(remove)])
    assert found["model_sha256"] == expected["model_sha256"]
    assert found["refused"] == 0


def test_a_study_on_a_cluster(tiny, tmp_path, cluster):
    jobs = [Job(str(n), tiny({**KNOBS, "seed": n}), tmp_path / str(n)) for n in (1, 2)]
    with actors(address=cluster.address) as pool:
        assert work_with(pool, jobs, "a command", lambda job, line: None) == {}
    for job in jobs:
        expected = run(job.experiment, Journal(tmp_path / f"{job.name}-inline"))
        found = Journal(job.folder).result()
        assert found is not None
        assert found["model_sha256"] == expected["model_sha256"]


def test_more_workers_than_cores_are_refused(monkeypatch, cluster):
    monkeypatch.setattr("fl.simulation.ray_pool._CONNECT_SECONDS", 25)
    with pytest.raises(ConfigError, match=r"1 of 3 Ray workers did not start"):
        actors(address=cluster.address, size=3)


def test_an_address_without_a_cluster_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    out = tmp_path / "run"
    monkeypatch.setattr("sys.argv", ["fednf", "run", "--runtime", "ray", "--out", str(out)])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert "no Ray cluster at 127.0.0.1:1" in capsys.readouterr().err
    assert not out.exists()
