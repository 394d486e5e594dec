"""The command, with contenders whose times are made up."""

import json

import pytest
import torch

from experiments.bench import device, harness
from experiments.bench.jobs import job
from experiments.bench.repetition import Failed, Repetition
from experiments.cli import bench
from tests.experiments.answers import refused

TINY = ["--clients", "2", "--images", "5", "--rounds", "2", "--repetitions", "2"]
RACE = ["--contender", "loop", "--contender", "sequential", "--against", "loop", *TINY]


@pytest.fixture
def made_up(monkeypatch):
    """Let loop take twice the time of all others, and of who is in this set nothing come."""
    failing = set()

    def repeat(name, job, images, *, watch_memory):
        if name in failing:
            raise Failed("[no] luck")
        seconds = 2.0 if name == "loop" else 1.0
        peak = 50_000_000 if watch_memory else None
        losses, accuracies = (2.0, 1.5, 1.0), (0.1, 0.2, 0.25)
        return Repetition(3.0, seconds, 2, sum(images[1:]), losses, 3 + seconds, accuracies, peak)

    monkeypatch.setattr(harness, "repeat", repeat)
    monkeypatch.setattr(bench, "peak", lambda: 1e11)
    monkeypatch.setattr(bench, "import_seconds", lambda: 0.25)
    return failing


def test_what_is_timed_is_the_import_of_all_that_a_client_does(monkeypatch):
    last = "import sys\nassert 'fl.client.task' in sys.modules\n"
    monkeypatch.setattr(device, "_PROGRAM", device._PROGRAM + last)
    monkeypatch.setattr(device, "_TIMES", 1)
    assert device.import_seconds() > 0.01


def test_every_job_with_every_batch_size_is_told_and_written(fednf, made_up, tmp_path):
    words = ["--job", "cnn", "--job", "plainnet-16", "--batch-size", "1", "--batch-size", "4"]
    answer = fednf("bench", *RACE, *words, "--out", "b.json", "--json")
    assert (answer.status, answer.err) == (0, "")
    report = json.loads((tmp_path / "b.json").read_text())
    assert json.loads(answer.lines[-1]) == report
    assert report["command"].startswith("fednf bench --contender loop")
    assert (report["against"], report["repetitions"], report["left_out"]) == ("loop", 2, {})
    assert report["sizes"] == [
        {"clients": 2, "images": 5, "unequal": False, "rounds": 2, "of": None}
    ]
    assert report["conditions"]["packages"]["torch"]
    assert [(case["job"], case["batch_size"]) for case in report["jobs"]] == [
        ("cnn", 1),
        ("cnn", 4),
        ("plainnet-16", 1),
        ("plainnet-16", 4),
    ]
    assert report["device_import_seconds"] == 0.25
    assert "a device imports fl.client.app in 0.25 s, after torch and Flower" in answer.lines
    case = report["jobs"][0]
    assert (case["parameters"], case["images"], case["sizes"]) == (25_578, 10, [5, 5])
    row = case["contenders"]["sequential"]
    assert row["ratio"] == {"median": 2.0, "least": 2.0, "most": 2.0}
    assert row["images_per_second"]["median"] == 20
    assert row["share_of_peak"] == pytest.approx(20 * case["flops_per_image"] / 1e11)
    assert row["peak_bytes"] == 50_000_000
    assert len(row["repetitions"]) == 3
    (line,) = [line for line in answer.lines if line.split()[:1] == ["sequential"]][:1]
    for text in ("20 (20–20)", "0.500 (0.500–0.500)", "2.00 (2.00–2.00)", "2.000 → 1.000", "0.250"):
        assert text in line


def test_rounds_of_some_clients_tell_what_a_round_has(fednf, made_up):
    words = ["--batch-size", "2", "--clients", "1", "--clients", "3", "--of", "4", "--json"]
    answer = fednf("bench", *RACE, *words)
    cases = json.loads(answer.lines[-1])["jobs"]
    assert [(case["clients"], case["images"], case["sizes"]) for case in cases] == [
        (2, 10, [5] * 4),
        (1, 5, [5] * 4),
        (3, 15, [5] * 4),
    ]
    assert any("15 images a round, of 3 of 4 clients, each 5 to 5" in line for line in answer.lines)
    assert any("loop: " in line and "ms a client" in line for line in answer.lines)


def test_every_width_of_every_job_is_a_case(fednf, made_up):
    words = ["--job", "cnn", "--job", "plainnet-16", "--width", "4", "--width", "16"]
    answer = fednf("bench", *RACE, *words, "--batch-size", "2", "--json")
    cases = json.loads(answer.lines[-1])["jobs"]
    assert [(case["job"], case["knobs"]["network.width"]) for case in cases] == [
        ("cnn", 4),
        ("cnn", 16),
        ("plainnet-16", 4),
        ("plainnet-16", 16),
    ]
    assert [case["parameters"] for case in cases[:2]] == [5_538, 25_578]
    assert any(
        line.startswith("cnn, none, width 4, batch size 2: 5,538 par") for line in answer.lines
    )


def test_the_mission_s_job_is_a_case_of_every_recipe_with_unequal_clients(fednf, made_up):
    words = ["--job", "mission", "--data", "fashion-mnist-small", "--clients", "3"]
    race = ["--contender", "fednf", "--contender", "loop", "--against", "loop", "--rounds", "2"]
    recipes = ["--recipe", "batchnorm", "--recipe", "zc-swish", "--batch-size", "4", "--json"]
    answer = fednf("bench", *words, *race, *recipes)
    cases = json.loads(answer.lines[-1])["jobs"]
    assert [case["knobs"]["recipe"] for case in cases] == ["batchnorm", "zc-swish"]
    for case in cases:
        assert (case["clients"], len(case["sizes"]), sum(case["sizes"])) == (3, 100, 5000)
        assert case["sizes"][0] < case["sizes"][-1]
        assert (case["knobs"]["partition.alpha"], case["knobs"]["client.clip"]) == (0.3, "norm:5")
        row = case["contenders"]["fednf"]
        assert row["whole"] == {"median": 4.0, "least": 4.0, "most": 4.0}
        assert row["whole_ratio"]["median"] == 5 / 4
        assert row["accuracy"] == 0.25
    title = "mission on fashion-mnist-small, batchnorm, batch size 4: "
    assert any(line.startswith(title) for line in answer.lines)


def test_every_number_of_lanes_is_a_case(fednf, made_up):
    words = ["--batch-size", "2", "--lanes", "2", "--lanes", "8", "--lanes", "2", "--json"]
    answer = fednf("bench", *RACE, *words)
    report = json.loads(answer.lines[-1])
    assert [case["knobs"]["vectorized.lanes"] for case in report["jobs"]] == [2, 8]
    assert {report["device"], *(case["knobs"]["device"] for case in report["jobs"])} == {"cpu"}
    assert any(
        line.startswith("cnn, none, batch size 2, 8 lanes: 25,578 par") for line in answer.lines
    )


def test_on_a_gpu_the_shares_of_the_cpu_s_peak_are_not_told(fednf, made_up, monkeypatch):
    monkeypatch.setattr(bench, "job", lambda *given: job(*given[:4]))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "A GPU")
    answer = fednf("bench", *TINY, "--batch-size", "2", "--device", "cuda", "--json")
    report = json.loads(answer.lines[-1])
    assert "ours train on A GPU, whose peak is not measured" in answer.lines
    assert (report["device"], report["peak_flops_per_second"]) == ("A GPU", None)
    assert (report["against"], report["left_out"]) == ("sequential", {})
    rows = report["jobs"][0]["contenders"]
    assert list(rows) == ["sequential", "traced"]
    assert {row["share_of_peak"] for row in rows.values()} == {None}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_nothing_is_timed_on_one(fednf, made_up):
    expected = "device=cuda: torch sees no CUDA device here; use device=cpu or auto"
    assert refused(fednf("bench", *TINY, "--device", "cuda")) == expected


def test_a_failed_contender_is_told_and_fails_the_bench(fednf, made_up, tmp_path):
    made_up.add("loop")
    answer = fednf("bench", *RACE, "--batch-size", "2", "--out", "b.json")
    assert answer.status == 1
    assert "failed: loop: [no] luck" in answer.lines
    (case,) = json.loads((tmp_path / "b.json").read_text())["jobs"]
    assert case["failed"] == {"loop": "[no] luck"}
    assert case["contenders"]["sequential"]["ratio"] is None


def test_who_is_not_here_is_left_out_with_the_reason(fednf, made_up, monkeypatch):
    row = bench.CONTENDERS["pfl"]
    monkeypatch.setitem(bench.CONTENDERS, "pfl", type(row)("x", "x", needs=("no_such_one",)))
    answer = fednf("bench", *TINY, "--batch-size", "2", "--json")
    assert "left out: pfl: no_such_one not installed" in answer.lines
    report = json.loads(answer.lines[-1])
    assert report["left_out"] == {"pfl": "no_such_one not installed"}
    raced = list(report["jobs"][0]["contenders"])
    assert raced == [name for name in bench.CONTENDERS if name in raced]
    assert "sequential" in raced
    assert not {"pfl", "vectorized-per-core-cold"} & set(raced)
    words = ["--contender", "pfl", "--contender", "loop", "--against", "loop"]
    expected = "pfl can't run here: no_such_one not installed"
    assert refused(fednf("bench", *words)) == expected


@pytest.mark.slow
def test_a_real_race(fednf, tmp_path):
    answer = fednf(
        *("bench", "--contender", "loop", "--against", "loop", "--batch-size", "5"),
        *("--clients", "2", "--images", "5", "--rounds", "1", "--repetitions", "1", "--unequal"),
        *("--out", "b.json"),
    )
    assert (answer.status, answer.err) == (0, "")
    report = json.loads((tmp_path / "b.json").read_text())
    (case,) = report["jobs"]
    assert sum(case["sizes"]) == case["images"] == 10
    warm, counted = case["contenders"]["loop"]["repetitions"]
    assert warm["peak_bytes"] > 50e6
    assert counted["peak_bytes"] is None
    assert counted["images"] == 10
    assert len(counted["losses"]) == 2
    assert report["peak_flops_per_second"] > 1e8


BAD = {
    "--job cnm": "--job cnm does not exist; did you mean cnn?",
    "--contender flour": "--contender flour does not exist; did you mean flower?",
    "--against nobody": "--against nobody does not exist; known: fednf, sequential, traced",
    "--contender loop --against sequential": "--against sequential is not among the contenders",
    "--batch-size 0": "--batch-size",
    "--clients 0": "--clients",
    "--repetitions 0": "--repetitions",
    "--lanes 0": "--lanes",
    "--device gpu": "--device gpu does not exist; did you mean cpu?",
    "--device cuda --contender loop --against loop": (
        "--contender loop is timed on the CPU alone, found --device cuda; take sequential, traced"
    ),
    "--device cuda --against loop": "--against loop is not among the contenders sequential, traced",
    "--width 0": "--width",
    "--job nf-resnet-18 --width 1": "kernels of one weight, which can't be standardized; raise",
    "--clients 3 --images 3": "9 images of all clients can't be of 10 classes; raise --images",
    "--of 9": "--of 9 is less than --clients 10, who are drawn from them; raise --of",
    "--clients 3 --clients 20 --of 19": "--of 19 is less than --clients 20",
    "--recipe zc-swich": "zc-swich",
    "--data digits": "--data digits is for --job mission alone, found --job cnn",
    "--job mission --data no-such-set": "no-such-set",
    "--out .": ". is a folder; choose a file",
}


@pytest.mark.parametrize("words", BAD)
def test_bad_input_is_one_line_and_status_two_and_writes_nothing(fednf, tmp_path, words):
    assert BAD[words] in refused(fednf("bench", *words.split()))
    assert list(tmp_path.iterdir()) == []
