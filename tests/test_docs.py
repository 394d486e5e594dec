"""What the documentation tells a reader to type can be typed."""

import re
import shlex
from pathlib import Path

import pytest
import typer

import fl
from experiments.cli import main, terminal
from fl.config import Experiment
from fl.data import CATALOGUE, catalogue, sets
from fl.data.dataset import DataNotHere
from fl.server.journal import Journal
from fl.simulation import run

ROOT = Path(fl.__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands(page: Path) -> list[tuple[str, ...]]:
    """Return the words behind `fednf` of every command in a page's blocks of shell."""
    blocks = re.findall(r"^```bash\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    typed = (shlex.split(part, comments=True) for line in lines for part in line.split("&&"))
    return [tuple(words[1:]) for words in typed if words[:1] == ["fednf"]]


def parsed(words: tuple[str, ...]) -> dict:
    """Return the options of a command as the command line understands them, without running it."""
    command, rest = typer.main.get_command(main.app), list(words)
    while hasattr(command, "commands"):
        command = command.commands[rest.pop(0)]
    return command.make_context("fednf", rest).params


def experiment(words: tuple[str, ...]) -> Experiment:
    return terminal.knobs(None, parsed(words)["settings"])


TYPED = [(page.name, words) for page in PAGES for words in commands(page)]
RUNS = [words for name, words in TYPED if name == "data.md" and "--out" in words]


@pytest.mark.parametrize(("page", "words"), TYPED)
def test_every_command_has_options_knobs_and_data_that_exist(page, words):
    options = parsed(words)
    if "settings" in options:
        assert experiment(words).data.name in CATALOGUE
    if words[:2] == ("data", "fetch"):
        assert options["name"] in CATALOGUE


def test_every_kind_of_data_has_a_run_in_micro_batches():
    runs = [experiment(words) for words in RUNS]
    assert {len(CATALOGUE[run.data.name].shape) - 1 for run in runs} == {1, 2, 3}
    assert {run.data.name for run in runs if run.partition.kind == "natural"} == {"watch", "emoji"}
    assert all(run.client.batch_size <= 8 for run in runs)


@pytest.mark.slow
@pytest.mark.parametrize("words", RUNS, ids=lambda words: Path(parsed(words)["out"]).name)
def test_the_run_on_each_kind_learns(words, tmp_path):
    knobs = experiment(words)
    try:
        catalogue.read(CATALOGUE[knobs.data.name])
    except DataNotHere:
        try:
            sets.fetch(knobs.data.name, lambda *figures: None)
        except sets.NotFetched as error:
            pytest.skip(str(error))
    journal = Journal(tmp_path / "run")
    result = run(knobs, journal)
    assert result["final_accuracy"] > 2 * journal.header()["chance"]
