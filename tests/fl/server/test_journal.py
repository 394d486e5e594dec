import json

import numpy as np
import pytest

from fl.config.parsing import ConfigError
from fl.server.journal import Checkpoint, Journal, model_sha256

CONDITIONS = {
    "data_sha256": "d",
    "deal_sha256": "p",
    "code_sha256": "c",
    "packages": {"torch": "2"},
}
MODEL = {"w": np.arange(3, dtype=np.float32), "s": np.array(2.0, np.float32)}


def played(folder, knobs, rounds=2, states=None) -> Journal:
    journal = Journal(folder)
    journal.begin(knobs, CONDITIONS)
    for number in range(rounds + 1):
        line = {"round": number, "test_accuracy": number / 10}
        listed = dict.fromkeys(states or {}, number)
        checkpoint = Checkpoint(number, {**MODEL, "w": MODEL["w"] + number}, clients=listed)
        journal.commit(line, [{"round": number, "partition": 1}], checkpoint, states or {})
    return journal


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
    journal.begin(tiny(), CONDITIONS)
    assert [line["round"] for line in journal.rounds()] == [0, 1, 2]
    assert not list((tmp_path / "clients").iterdir())


def test_an_unfinished_run_needs_resume(tmp_path, tiny):
    journal = played(tmp_path, tiny())
    with pytest.raises(ConfigError, match="--resume"):
        journal.check(tiny(), resume=False)
    journal.check(tiny(), resume=True)
    journal.finish({"final_accuracy": 0.2}, MODEL)
    journal.check(tiny(), resume=False)
    assert journal.result() == {"final_accuracy": 0.2}


def test_another_experiment_s_folder_is_refused(tmp_path, tiny):
    journal = played(tmp_path, tiny())
    before = sorted((p.name, p.read_bytes()) for p in tmp_path.iterdir())
    with pytest.raises(ConfigError, match=r"client\.lr=0\.05 there, 0\.1 here"):
        journal.check(tiny({"client.lr": 0.1}), resume=True)
    journal.check(tiny({"run.dir": "/elsewhere"}), resume=True)
    assert sorted((p.name, p.read_bytes()) for p in tmp_path.iterdir()) == before


def test_folders_and_files_of_others_are_refused(tmp_path, tiny):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(ConfigError, match="holds other files"):
        Journal(tmp_path).check(tiny(), resume=True)
    with pytest.raises(ConfigError, match="is a file"):
        Journal(tmp_path / "mine.txt").check(tiny(), resume=True)
    Journal(tmp_path / "new").check(tiny(), resume=False)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("key", ["data_sha256", "deal_sha256"])
def test_changed_data_stop_a_resume(tmp_path, tiny, key):
    journal = played(tmp_path, tiny())
    with pytest.raises(ConfigError, match=f"{key} was {CONDITIONS[key]}, is other"):
        journal.begin(tiny(), {**CONDITIONS, key: "other"})


def test_changed_code_is_written_down_once(tmp_path, tiny):
    journal = played(tmp_path, tiny())
    journal.begin(tiny(), CONDITIONS)
    assert "resumed" not in journal.header()
    newer = {**CONDITIONS, "code_sha256": "d"}
    for _ in range(2):
        journal.begin(tiny(), newer)
    there = {"after_round": 2, "code_sha256": "d", "packages": CONDITIONS["packages"]}
    assert journal.header()["resumed"] == [there]
    assert journal.header()["code_sha256"] == "c"


def test_what_died_before_its_first_round_leaves_no_conditions(tmp_path, tiny):
    journal = Journal(tmp_path)
    journal.begin(tiny(), CONDITIONS)
    journal.begin(tiny(), {**CONDITIONS, "code_sha256": "d", "data_sha256": "e"})
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
        journal.begin(tiny(), CONDITIONS)
    assert "\n" not in str(error.value)
    assert sorted((p.name, p.read_bytes()) for p in tmp_path.iterdir()) == before


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
        Journal(tmp_path / "run").alone(),
        pytest.raises(ConfigError, match="another process is writing"),
        Journal(tmp_path / "run").alone(),
    ):
        pass
    with Journal(tmp_path / "run").alone():
        pass


def test_whoever_comes_next_removes_what_killed_writes_left(tmp_path):
    (tmp_path / "clients").mkdir()
    (tmp_path / ".rounds.jsonl-a1b2.part").touch()
    (tmp_path / "clients" / ".3-2.safetensors-a1b2.part").touch()
    with Journal(tmp_path).alone():
        assert [path.name for path in tmp_path.rglob("*")] == ["clients"]
