"""What `docs/guide/deploy.md` tells a reader to try on one machine works, with TLS and keys."""

import re
import shlex
from pathlib import Path

import pytest

import fl
from fl.config import Experiment
from fl.data import fashion_mnist_small
from tests.deployment import Site, free_port

PAGE = Path(fl.__file__).parents[1] / "docs" / "guide" / "deploy.md"
SECTION = PAGE.read_text("utf-8").partition("## Try it on one machine")[2].partition("\n## ")[0]
INIT, THERE = re.findall(r"^```bash\n(.*?)^```", SECTION, re.M | re.S)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds processes in /proc")
def test_a_deployment_on_one_machine(fednf, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    fashion_mnist_small.fill_cache()
    words = shlex.split(INIT.replace("\\\n", " "), comments=True)[1:]
    assert fednf(*words, "--port", str(free_port())).status == 0
    site = Site(tmp_path / "site", Experiment.from_toml(tmp_path / "site" / "run.toml"))
    lines = [shlex.split(line, comments=True) for line in THERE.splitlines()]
    try:
        for program, *rest in lines:
            name = program.removeprefix("site/")
            if program == "fednf" and rest[0] == "report":
                site.result()
                assert fednf(*rest).status == 0
            elif program == "fednf":
                site.check()
            elif name == "register.sh":
                site.register()
            elif name == "superlink.sh":
                site.superlink()
            elif name.startswith("device-"):
                site.device(int(name.split("/")[0].removeprefix("device-")))
            else:
                site.start(name)
    finally:
        site.end()
    assert site.rounds()[-1]["replied"] == 2
    assert (tmp_path / "site" / "run" / "report.html").is_file()
