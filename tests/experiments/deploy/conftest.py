import pytest

TINY = [
    "network.depth=3",
    "network.width=4",
    "partition.kind=iid",
    "client.batch-size=32",
    "rounds=3",
    "engine=sequential",
]


@pytest.fixture
def deployed(fednf, tmp_path):
    """Make the folder of a tiny deployment; returns it."""

    def make(devices=4, *words):
        knobs = [word for knob in TINY for word in ("--set", knob)]
        done = fednf("deploy", "init", "site", "--devices", str(devices), *knobs, *words)
        assert done.status == 0, done.err
        return tmp_path / "site"

    return make
