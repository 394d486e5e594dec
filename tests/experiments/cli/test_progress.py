import io

import pytest
from rich.console import Console

from experiments.cli.progress import Display
from experiments.studies.workers import Job

LONG = "zc-swish_dirichlet_alpha-0.1_fedprox_mu-0.1_client.lr-0.05_network.depth-8_seed-12345"


def line(number: int, **figures: object) -> dict:
    usual = {"round": number, "test_accuracy": 0.5 + number / 100, "refused": [], "asked": 2}
    return {**usual, "images": 300 * number, "train_seconds": 1.5 * number, **figures}


def jobs(tiny, tmp_path, *names: str) -> list[Job]:
    return [Job(name, tiny({"rounds": 3}), tmp_path / name) for name in names]


def shown(work: list[Job], told, *, terminal: bool = False, quiet: bool = False) -> list[str]:
    """Tell a display of (job, line) pairs; returns what stands on the screen, line by line."""
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=80)
    display = Display(work, console, quiet)
    with display.shown():
        for job, figures in told:
            display.round(job, figures)
    return out.getvalue().splitlines()


def test_one_run_has_a_line_a_round(tiny, tmp_path):
    (job,) = jobs(tiny, tmp_path, "zc-swish")
    assert shown([job], [(job, line(number)) for number in range(4)]) == [
        "round 0/3: accuracy 0.500, 0 s",
        "round 1/3: accuracy 0.510, 200 images/s, 0 s",
        "round 2/3: accuracy 0.520, 200 images/s, 0 s",
        "round 3/3: accuracy 0.530, 200 images/s, 0 s",
    ]


def test_several_runs_have_a_line_a_finished_run_however_long_its_name(tiny, tmp_path):
    work = jobs(tiny, tmp_path, "none", LONG)
    told = [(job, line(number)) for number in range(4) for job in reversed(work)]
    assert shown(work, told) == [
        f"[1/2] {LONG}, round 3/3: accuracy 0.530, 200 images/s, 0 s",
        "[2/2] none, round 3/3: accuracy 0.530, 200 images/s, 0 s",
    ]


@pytest.mark.parametrize("terminal", [False, True])
def test_refused_replies_are_shown_on_one_line_as_they_are(tiny, tmp_path, terminal):
    work = jobs(tiny, tmp_path, "none", "swish")
    reason = "ValueError: [red]broken[/red] :100:\n" + 8 * "a long story, "
    refused = [{"partition": 7, "reason": reason}, {"partition": 8, "reason": "x"}]
    lines = shown(work, [(work[0], line(1, refused=refused))], terminal=terminal)
    expected = f"none, round 1: 2 of 2 replies refused; client 7: {' '.join(reason.split())}"
    assert any(expected in text for text in lines)
    if not terminal:
        assert lines == [expected]


@pytest.mark.parametrize("names", [["none"], ["none", "swish"]])
def test_a_terminal_shows_bars_unless_asked_to_be_quiet(tiny, tmp_path, names):
    work = jobs(tiny, tmp_path, *names)
    told = [(job, line(number)) for number in range(4) for job in work]
    bars = "\n".join(shown(work, told, terminal=True))
    total = 3 * len(names)
    assert f"{total}/{total}" in bars
    assert "accuracy 0.530" in bars if len(names) == 1 else "rounds" in bars
    quiet = shown(work, told, terminal=True, quiet=True)
    assert len(quiet) == (4 if len(names) == 1 else 2)
    assert not any("━" in text for text in quiet)


def test_a_resumed_run_counts_the_rounds_that_were_there(tiny, tmp_path):
    """Lines of finished rounds come at once on resume; the total bar takes them all in."""
    work = jobs(tiny, tmp_path, "none", "swish")
    display = Display(work, Console(file=io.StringIO(), force_terminal=True), quiet=False)
    with display.shown():
        for number in range(3):
            display.round(work[0], line(number))
        task = display.progress.tasks[display.total]
        assert (task.completed, task.total) == (2, 6)
