import json

import numpy as np
import pytest

from fl.config import Experiment
from fl.config.parsing import ConfigError
from fl.server import opening
from fl.server.journal import Checkpoint, Journal, model_sha256
from fl.server.opening import check, opened

CONDITIONS = {
    "data_sha256": "d",
    "deal_sha256": "p",
    "code_sha256": "c",
    "packages": {"torch": "2"},
}
MODEL = {"w": np.arange(3, dtype=np.float32), "s": np.array(2.0, np.float32)}


def begin(journal, knobs, conditions) -> None:
    with opened(journal, knobs, resume=True) as found:
        opening.begin(journal, knobs, conditions, found)


def played(folder, knobs, rounds=2, states=None) -> Journal:
    journal = Journal(folder)
    begin(journal, knobs, CONDITIONS)
    for number in range(rounds + 1):
        line = {"round": number, "test_accuracy": number / 10}
        listed = dict.fromkeys(states or {}, number)
        checkpoint = Checkpoint(number, {**MODEL, "w": MODEL["w"] + number}, clients=listed)
        told = [{"round": number, "partition": 1}]
        journal.commit(line, told, checkpoint, states or {}, told)
    return Journal(folder)


def test_a_checkpoint_comes_back_as_it_went(tmp_path, tiny):
    states = {3: ({"c/w": np.ones(2)}, "text")}
    journal = played(tmp_path / "run", tiny(), states=states)
    checkpoint = journal.checkpoint()
    assert (checkpoint.round, checkpoint.clients) == (2, {3: 2})
    assert checkpoint.model["w"].tolist() == [2, 3, 4]
    assert checkpoint.model["s"].shape == ()
    tensors, text = journal.client_state(3, 2)
    assert tensors["c/w"].tolist() == [1, 1]
    assert text == "text"
    assert [path.name for path in (tmp_path / "run" / "clients").iterdir()] == ["3-2.safetensors"]


def test_lines_past_the_checkpoint_are_cut_off(tmp_path, tiny):
    journal = played(tmp_path, tiny())
    with (tmp_path / "rounds.jsonl").open("a") as file:
        file.write('{"round": 3, "test_accuracy": 0.9}\n{"round": 4, "test_ac')
    (tmp_path / "clients").mkdir()
    (tmp_path / "clients" / "5-3.safetensors").touch()
    begin(journal, tiny(), CONDITIONS)
    assert [line["round"] for line in journal.rounds()] == [0, 1, 2]
    assert not list((tmp_path / "clients").iterdir())


def test_an_unfinished_run_needs_resume(tmp_path, tiny):
    journal = played(tmp_path, tiny())
    with pytest.raises(ConfigError, match="--resume"):
        check(journal, tiny(), resume=False)
    check(journal, tiny(), resume=True)
    journal.finish({"final_accuracy": 0.2})
    check(journal, tiny(), resume=False)
    assert journal.result() == {"final_accuracy": 0.2}


def test_another_experiment_s_folder_is_refused(tmp_path, tiny):
    journal = played(tmp_path, tiny())
    before = sorted((p.name, p.read_bytes()) for p in tmp_path.iterdir())
    with pytest.raises(ConfigError, match=r"client\.lr=0\.05 there, 0\.1 here"):
        check(journal, tiny({"client.lr": 0.1}), resume=True)
    check(journal, tiny({"run.dir": "/elsewhere"}), resume=True)
    assert sorted((p.name, p.read_bytes()) for p in tmp_path.iterdir()) == before


def test_folders_and_files_of_others_are_refused(tmp_path, tiny):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(ConfigError, match="holds other files"):
        check(Journal(tmp_path), tiny(), resume=True)
    with pytest.raises(ConfigError, match="is a file"):
        check(Journal(tmp_path / "mine.txt"), tiny(), resume=True)
    check(Journal(tmp_path / "new"), tiny(), resume=False)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("key", ["data_sha256", "deal_sha256"])
def test_changed_data_stop_a_resume(tmp_path, tiny, key):
    journal = played(tmp_path, tiny())
    with pytest.raises(ConfigError, match=f"{key} was {CONDITIONS[key]}, is other"):
        begin(journal, tiny(), {**CONDITIONS, key: "other"})


def test_changed_code_is_written_down_once(tmp_path, tiny):
    journal = played(tmp_path, tiny())
    begin(journal, tiny(), CONDITIONS)
    assert "resumed" not in journal.header()
    newer = {**CONDITIONS, "code_sha256": "d"}
    for _ in range(2):
        begin(journal, tiny(), newer)
    there = {"after_round": 2, "code_sha256": "d", "packages": CONDITIONS["packages"]}
    assert journal.header()["resumed"] == [there]
    assert journal.header()["code_sha256"] == "c"


def test_what_died_before_its_first_round_leaves_no_conditions(tmp_path, tiny):
    journal = Journal(tmp_path)
    begin(journal, tiny(), CONDITIONS)
    begin(journal, tiny(), {**CONDITIONS, "code_sha256": "d", "data_sha256": "e"})
    assert (journal.header()["code_sha256"], journal.header()["data_sha256"]) == ("d", "e")


def without_metadata(path):
    from safetensors.numpy import save_file

    save_file(MODEL, path)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("experiment.json", lambda path: path.write_bytes(b"garbage")),
        ("experiment.json", lambda path: path.write_text('{"knobs": [], "identity": ""}')),
        ("checkpoint.safetensors", lambda path: path.write_bytes(b"garbage")),
        ("checkpoint.safetensors", without_metadata),
        ("rounds.jsonl", lambda path: path.unlink()),
        ("rounds.jsonl", lambda path: path.write_text('{"round": 0}\ngarbage\n{"round": 2}\n')),
        ("rounds.jsonl", lambda path: path.write_text('{"round": 0}\n{"round": 2}\n')),
        ("clients.jsonl", lambda path: path.write_text("[]\n")),
    ],
)
def test_a_damaged_file_is_named(tmp_path, tiny, name, damage):
    journal = played(tmp_path, tiny())
    damage(tmp_path / name)
    before = sorted((p.name, p.read_bytes()) for p in tmp_path.iterdir())
    with pytest.raises(ConfigError, match=name) as error:
        begin(journal, tiny(), CONDITIONS)
    assert "\n" not in str(error.value)
    assert sorted((p.name, p.read_bytes()) for p in tmp_path.iterdir()) == before


def copied(folder, name):
    """Put a file of a run with another seed in the place of a run's own."""

    def copy(path):
        other = played(folder / "other", Experiment.from_flat({"seed": 9}), states=STATES)
        other.finish({})
        path.write_bytes((folder / "other" / name).read_bytes())

    return copy


STATES = {3: ({"c": np.ones(2)}, "{}")}


def without(number):
    def remove(path):
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(lines[:number] + lines[number + 1 :]))

    return remove


def turned(path):
    path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))


def renamed(path):
    path.write_text(path.read_text().replace('{"round": 1', '{"rounb": 1'))


@pytest.mark.parametrize("name", ["rounds.jsonl", "clients.jsonl", "signals.jsonl"])
@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (without(2), "it ends before line 3, and had 3"),
        (without(1), "line 2 is not as it was written"),
        (turned, "line 1 is not as it was written"),
        (renamed, "line 2 is not as it was written"),
        (lambda path: path.unlink(), "it ends before line 1, and had 3"),
    ],
)
def test_damaged_lines_are_told_by_file_and_line(tmp_path, tiny, name, damage, told):
    journal = played(tmp_path, tiny())
    damage(tmp_path / name)
    read = getattr(journal, name.partition(".")[0])
    for reading in (read, lambda: begin(journal, tiny(), CONDITIONS)):
        with pytest.raises(ConfigError, match=f"{name} is damaged: {told}"):
            reading()


@pytest.mark.parametrize(
    "name",
    [
        "experiment.json",
        "rounds.jsonl",
        "clients.jsonl",
        "checkpoint.safetensors",
        "clients/3-2.safetensors",
        "result.json",
    ],
)
def test_a_file_of_another_run_is_not_taken_for_this_one_s(tmp_path, name):
    journal = played(tmp_path / "run", Experiment(), states=STATES)
    journal.finish({})
    copied(tmp_path, name)(tmp_path / "run" / name)

    def read_all():
        journal.result()
        journal.rounds()
        journal.clients()
        journal.client_state(3, journal.checkpoint().clients[3])

    with pytest.raises(ConfigError, match="is damaged: "):
        read_all()


@pytest.mark.parametrize("rounds", [0, 1, 2])
def test_a_run_without_its_checkpoint_does_not_begin_anew(tmp_path, tiny, rounds):
    """But one that died in round 0, before there was a checkpoint, does."""
    journal = played(tmp_path, tiny(), rounds)
    (tmp_path / "checkpoint.safetensors").unlink()
    (tmp_path / "clients.jsonl").unlink()
    for resume in (True, False):
        if rounds:
            with pytest.raises(ConfigError, match=r"its checkpoint\.safetensors is gone; put it"):
                check(journal, tiny(), resume=resume)
        else:
            check(journal, tiny(), resume=resume)


def test_a_longer_run_needs_the_checkpoint_of_the_finished_one(tmp_path, tiny):
    journal = played(tmp_path, tiny())
    journal.finish({"rounds": 2})
    (tmp_path / "checkpoint.safetensors").unlink()
    check(journal, tiny(), resume=False)
    with pytest.raises(ConfigError, match="is gone; put it back"):
        check(journal, tiny({"rounds": 3}), resume=True)


def test_a_damaged_result_is_named(tmp_path):
    (tmp_path / "result.json").write_text("garbage")
    with pytest.raises(ConfigError, match=r"result\.json is damaged"):
        Journal(tmp_path).result()


def test_the_header_says_what_was_asked(tmp_path, tiny):
    played(tmp_path, tiny())
    header = json.loads((tmp_path / "experiment.json").read_text())
    assert header["knobs"] == tiny().to_flat()
    assert header["identity"] == tiny().identity
    assert header["data_sha256"] == "d"


def test_the_model_s_hash_notices_every_bit():
    other = {**MODEL, "w": np.nextafter(MODEL["w"], np.float32(9))}
    assert model_sha256(MODEL) != model_sha256(other)
    assert model_sha256(dict(reversed(MODEL.items()))) == model_sha256(MODEL)


def test_a_folder_takes_one_writer_at_a_time(tmp_path):
    with (
        opened(Journal(tmp_path / "run"), Experiment(), resume=False),
        pytest.raises(ConfigError, match="another process is writing"),
        opened(Journal(tmp_path / "run"), Experiment(), resume=False),
    ):
        pass
    with opened(Journal(tmp_path / "run"), Experiment(), resume=False):
        pass


def test_whoever_comes_next_removes_what_killed_writes_left(tmp_path):
    played(tmp_path, Experiment())
    (tmp_path / "clients").mkdir()
    left = tmp_path / ".rounds.jsonl-a1b2.part", tmp_path / "clients" / ".3-2.safetensors-a1b2.part"
    for path in left:
        path.touch()
    with opened(Journal(tmp_path), Experiment(), resume=True):
        assert not any(path.exists() for path in left)


def test_a_run_that_failed_before_its_first_file_begins_anew(tmp_path):
    Journal(tmp_path).keep_error(0, "server", "a bug \udcff")
    with opened(Journal(tmp_path), Experiment(), resume=False) as found:
        assert (found.checkpoint, found.result) == (None, None)


def test_a_folder_to_which_nothing_was_written_is_gone_again(tmp_path):
    with opened(Journal(tmp_path / "a" / "b"), Experiment(), resume=False):
        assert (tmp_path / "a" / "b").is_dir()
    assert list(tmp_path.iterdir()) == []
