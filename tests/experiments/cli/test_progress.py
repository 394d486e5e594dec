import io
import re

import pytest
from rich.console import Console

from experiments.cli.progress import Display, Shown, shortened
from experiments.studies.workers import Job
from fl.server.watching.callback import Line, RunInfo

LONG = "zc-swish_dirichlet_alpha-0.1_fedprox_mu-0.1_client.lr-0.05_network.depth-8_seed-12345"


def line(number: int, *, replayed: bool = False, **figures: object) -> Line:
    usual = {"round": number, "test_accuracy": 0.5 + number / 100, "refused": [], "asked": 2}
    usual |= {"images": 300 * number, "train_seconds": 1.5 * number, **figures}
    return Line(usual, replayed=replayed)


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


def test_a_run_that_patience_ends_is_a_finished_one(tiny, tmp_path):
    flat = {"rounds": 3, "data.validation": 0.1, "run.patience": 1}
    work = [Job(name, tiny(flat), tmp_path / name) for name in ("none", "swish")]
    scores = {"none": (0.3, 0.2), "swish": (0.3, 0.4, 0.5, 0.6)}
    told = [
        (job, line(number, validation_accuracy=score))
        for job in work
        for number, score in enumerate(scores[job.name])
    ]
    assert shown(work, told) == [
        "[1/2] none, round 1/3: accuracy 0.510, 200 images/s, 0 s",
        "[2/2] swish, round 3/3: accuracy 0.530, 200 images/s, 0 s",
    ]
    assert "4/4" in shown(work, told, terminal=True)[-2]


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
            display.round(work[0], line(number, replayed=True))
        task = display.progress.tasks[display.total]
        assert (task.completed, task.total) == (2, 6)
        assert task.speed is None  # nothing was trained, so nothing is known of the time left


@pytest.mark.parametrize("width", [80, 100, 200])
def test_a_bar_is_one_line_whose_last_word_is_the_time_left(tiny, tmp_path, width):
    out = io.StringIO()
    work = jobs(tiny, tmp_path, LONG, f"{LONG}6")
    display = Display(work, Console(file=out, force_terminal=True, width=width), quiet=False)
    with display.shown():
        for job in work:
            display.round(job, line(1, images=2_000_000, test_accuracy=0.98765))
        screen = Console(width=width, file=io.StringIO())
        screen.print(display.progress.get_renderable())
    lines = screen.file.getvalue().rstrip("\n").split("\n")
    assert len(lines) == 3
    for text in lines[1:]:
        assert text.startswith("zc-swish_d")
        assert "accuracy 0.988, 1,333,333 images/s" in text
        assert "1/3" in text
    assert all(re.search(r" (--|\d\d):(--|\d\d)$", text.rstrip()) for text in lines)


def told(tiny, tmp_path, resumed_after: int | None, lines) -> tuple[Shown, list[str]]:
    """Tell of a run's rounds; returns who was told, and what stands on the screen."""
    out, (job,) = io.StringIO(), jobs(tiny, tmp_path, "none")
    shown = Shown(Display([job], Console(file=out, width=80), quiet=False), job)
    engine = {"engine": "vectorized", "workers": 2, "why": "5 lanes, traced"}
    with shown.display.shown():
        shown.run_begun(RunInfo(tmp_path, job.experiment, {"engine": engine}, resumed_after))
        for one in lines:
            shown.round_done(one)
    return shown, out.getvalue().splitlines()


def test_a_resumed_run_says_how_much_was_done_and_shows_the_rest(tiny, tmp_path):
    lines = [line(number, replayed=number < 3, eval_seconds=0.0) for number in range(4)]
    _, screen = told(tiny, tmp_path, 2, lines)
    assert screen == [
        "resumed: 2 of 3 rounds were done before",
        "round 3/3: accuracy 0.530, 200 images/s, 0 s",
    ]


def test_a_run_accounts_for_its_engine_and_its_time(tiny, tmp_path):
    seconds = [0.0, 9.0, 1.0, 2.0]
    lines = [line(n, train_seconds=s, eval_seconds=0.5) for n, s in enumerate(seconds)]
    shown, _ = told(tiny, tmp_path, None, lines)
    assert shown.account() == (
        "engine vectorized (5 lanes, traced), 2 workers; 0.0 s of preparing, 12.0 s of training "
        "(9.0 s in its first round, for caches and traces), 2.0 s of evaluating"
    )
    lines[1] = line(1, train_seconds=1.5, eval_seconds=0.5, replayed=True)
    shown, _ = told(tiny, tmp_path, 1, lines[1:])
    assert "3.0 s of training, 1.0 s of evaluating" in shown.account()


def test_a_name_that_is_too_long_keeps_both_its_ends():
    assert shortened(LONG, 21) == "zc-swish_d…seed-12345"
    assert shortened("none", 4) == "none"


def test_a_profile_is_a_table_a_picture_and_every_span(fednf, tmp_path):
    words = "run --profile --workers 1 --set rounds=2 --set network.depth=3 --set network.width=4"
    answer = fednf(*words.split(), "--set", "sampling.clients=2", "--out", "one")
    assert answer.status == 0, answer.err
    table = answer.lines[next(n for n, line in enumerate(answer.lines) if "wait" in line) :]
    assert [line.split()[0] for line in table[1:3]] == ["1", "2"]
    shares = [float(share) for share in re.findall(r"([\d.]+)%", table[1])]
    assert len(shares) == 4
    assert sum(shares) == pytest.approx(100, abs=0.3)
    assert {path.name for path in (tmp_path / "one").glob("profile.*")} == {
        "profile.png",
        "profile.svg",
        "profile.csv",
    }
    rows = (tmp_path / "one" / "profile.csv").read_text().splitlines()
    assert rows[0] == "worker,what,round,client,begun,ended"
    assert sum(",client," in row for row in rows[1:]) == 4
    again = fednf(*words.split(), "--set", "sampling.clients=2", "--out", "one")
    assert "nothing to profile" in again.out


def test_clocks_of_a_cluster_are_not_compared(fednf):
    assert "leave --runtime ray out" in fednf("run", "--profile", "--runtime", "ray").err
