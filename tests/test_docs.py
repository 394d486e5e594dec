"""What the documentation tells a reader to type can be typed, and what it points at exists."""

import importlib
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
from fl.nn.networks import SKELETONS
from fl.nn.recipes import RECIPES
from fl.server.journal import Journal
from fl.simulation import run

ROOT = Path(fl.__file__).parent.parent
FRONT = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
PAGES = [*FRONT, *sorted((ROOT / "docs").glob("**/*.md"))]
LINKED = [*PAGES, ROOT / "CHANGELOG.md"]
ROOMS = ("fl", "strategies", "partitions", "experiments", "tests", "tools", "docs", "examples")


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


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
    return Experiment.from_flat(terminal.flat(None, parsed(words)["settings"]))


def prose(page: Path) -> str:
    """Return a page without its blocks of code."""
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)


def links(page: Path) -> list[str]:
    """Return the targets of a page's links and figures that are in this repository."""
    targets = re.findall(r"\]\(([^)\s]+)\)", prose(page))
    return [target for target in targets if not re.match(r"[a-z]+:", target)]


def headings(page: Path) -> set[str]:
    """Return the anchors that GitHub gives a page's headings."""
    lines = re.findall(r"^#+ (.*)$", prose(page), re.M)
    return {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in lines}


def paths(page: Path) -> list[str]:
    """Return what a page has in backticks and looks like a path below one of our folders."""
    quoted = re.findall(r"`([^`\s]+)`", prose(page))
    return [text for text in quoted if re.fullmatch(rf"({'|'.join(ROOMS)})/[\w./-]*", text)]


TYPED = [(name_of(page), words) for page in PAGES for words in commands(page)]
RUNS = [words for name, words in TYPED if name == "docs/measurements/data.md" and "--out" in words]


@pytest.mark.parametrize(("page", "words"), TYPED)
def test_every_command_has_options_knobs_and_data_that_exist(page, words):
    options = parsed(words)
    if "settings" in options:
        assert experiment(words).data.name in CATALOGUE
    if words[:2] == ("data", "fetch"):
        assert options["name"] in CATALOGUE


@pytest.mark.parametrize("page", LINKED, ids=name_of)
def test_every_link_and_figure_is_there(page):
    for target in links(page):
        name, _, anchor = target.partition("#")
        found = (page.parent / name).resolve() if name else page
        assert found.exists(), f"{name_of(page)} points at {target}"
        assert not anchor or anchor in headings(found), f"{name_of(page)} points at {target}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_path_in_backticks_exists(page):
    missing = [path for path in paths(page) if not (ROOT / path).exists()]
    assert not missing, f"{name_of(page)} names {', '.join(missing)}"


def named_tests(page: Path) -> list[str]:
    """Return the tests that a page names: `tests/a/test_b.py::test_c`."""
    return re.findall(r"`(tests/[^`\s]*::[^`\s]*)`", prose(page))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_test_that_a_page_names_exists(page):
    for name in named_tests(page):
        file, _, test = name.partition("::")
        found = re.findall(r"^def (test_\w+)\(", (ROOT / file).read_text(encoding="utf-8"), re.M)
        assert test in found, f"{name_of(page)} names {name}"


def imported(page: Path) -> list[tuple[str, str]]:
    """Return the modules of ours that a page's blocks of Python import, each with a name of it.

    Files that the page tells its reader to write are none of ours.
    """
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)
    lines = re.findall(r"^\s*from (\w[\w.]*) import ([\w, ]+)", "".join(blocks), re.M)
    return [
        (module, name.split()[0])
        for module, names in lines
        if module.partition(".")[0] in ROOMS and f"{module.replace('.', '/')}.py" not in text
        for name in names.split(",")
    ]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_name_that_a_page_imports_from_us_is_there(page):
    for module, name in imported(page):
        found = importlib.import_module(module)
        assert hasattr(found, name), f"{name_of(page)} imports {name} from {module}"


def test_the_readme_counts_recipes_and_families_as_they_are():
    text = " ".join(FRONT[0].read_text(encoding="utf-8").split())
    recipes, families = re.findall(r"\[(\d+) recipes for (\d+) families of networks\]", text)[0]
    assert (int(recipes), int(families)) == (len(RECIPES), len(SKELETONS))


def test_the_threat_model_names_its_tests():
    assert len(named_tests(ROOT / "docs" / "design" / "threat-model.md")) > 20


def test_the_pages_that_a_newcomer_reads_have_links_and_paths():
    assert all(links(page) and paths(page) for page in FRONT)


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
