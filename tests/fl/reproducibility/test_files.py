import hashlib
import json
import os

import numpy as np
import pytest
from safetensors import safe_open

from fl.reproducibility import checking, files
from fl.reproducibility.files import fingerprint, write_whole


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "a" / "file"
    write_whole(path, "old")
    monkeypatch.setattr(
        files.os, "fsync", lambda handle: (_ for _ in ()).throw(OSError("disk full"))
    )
    with pytest.raises(OSError, match="disk full"):
        write_whole(path, "new")
    assert [p.read_text() for p in path.parent.iterdir()] == ["old"]


def test_a_write_replaces_the_whole_file(tmp_path):
    write_whole(tmp_path / "file", b"a long content")
    write_whole(tmp_path / "file", "short")
    assert (tmp_path / "file").read_bytes() == b"short"


def test_a_fingerprint_notices_names_types_shapes_and_values():
    base = {"w": np.arange(6, dtype=np.float32)}
    others = [
        {"v": base["w"]},
        {"w": base["w"].astype(np.float64)},
        {"w": base["w"].reshape(2, 3)},
        {"w": base["w"] + 1},
        {**base, "b": np.zeros(1, np.float32)},
    ]
    assert len({fingerprint(arrays) for arrays in [base, *others]}) == 6


def test_a_fingerprint_does_not_depend_on_order_layout_or_byte_order():
    arrays = {"a": np.arange(6.0).reshape(2, 3), "b": np.arange(3)}
    same = {
        "b": arrays["b"].astype(arrays["b"].dtype.newbyteorder(">")),
        "a": np.asfortranarray(arrays["a"]),
    }
    assert fingerprint(same) == fingerprint(arrays)


def test_an_interruption_just_after_the_last_step_is_passed_on(tmp_path, monkeypatch):
    replace = files.os.replace

    def replaced_and_interrupted(*paths):
        replace(*paths)
        raise KeyboardInterrupt

    monkeypatch.setattr(files.os, "replace", replaced_and_interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_whole(tmp_path / "file", "new")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("file", "new")]


def test_only_a_last_line_may_be_unfinished(tmp_path):
    path = tmp_path / "lines.jsonl"
    assert checking.read_lines(path) == []
    files.append_lines(path, [{"a": 1}, {"a": 2}])
    with path.open("a") as file:
        file.write('{"a": 3')
    assert checking.read_lines(path) == [{"a": 1}, {"a": 2}]
    path.write_text('{"a": 1}\n{"a"\n{"a": 3}\n')
    with pytest.raises(ValueError, match="line 2 is no JSON: Expecting"):
        checking.read_lines(path)


def test_a_number_that_json_does_not_know_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.append_lines(tmp_path / "lines.jsonl", [{"a": float("inf")}])


TENSORS = {
    "w": np.arange(5, dtype=np.float32),
    "none": np.zeros((0, 2)),
    "s": np.array(2, np.int64),
}


@pytest.mark.parametrize("tensors", [TENSORS, {}])
def test_a_sealed_file_of_tensors_is_a_plain_one_and_always_the_same(tmp_path, tensors):
    paths = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    for path in paths:
        files.write_tensors(path, tensors, {"one": 'a "word"\n', "two": "ä"})
    assert paths[0].read_bytes() == paths[1].read_bytes()
    with safe_open(paths[0], framework="numpy") as file:
        told = file.metadata()
        there = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dict
    assert fingerprint(there) == fingerprint(tensors)
    assert (told["one"], told["two"]) == ('a "word"\n', "ä")
    raw = paths[0].read_bytes()
    assert int.from_bytes(raw[:8], "little") % 8 == 0
    blank = raw.replace(told["file_sha256"].encode(), b"0" * 64)
    assert hashlib.sha256(blank).hexdigest() == told["file_sha256"]
    found, metadata = checking.read_tensors(paths[0], sealed=True)
    assert (fingerprint(found), metadata) == (fingerprint(tensors), told)


def test_what_was_read_can_be_written_again(tmp_path):
    files.write_json(tmp_path / "one", {"a": 1})
    found = checking.read_json(tmp_path / "one", sealed=True)
    files.write_json(tmp_path / "other", {**found, "a": 2})
    assert checking.read_json(tmp_path / "other", sealed=True)["a"] == 2
    files.write_json(tmp_path / "again", found)
    assert (tmp_path / "again").read_bytes() == (tmp_path / "one").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["json", "safetensors"])
def test_every_bit_of_a_sealed_file_is_covered(tmp_path, kind):
    path = tmp_path / "file"
    if kind == "json":
        files.write_json(path, {"a": [1, None], "ä": "text"})
        assert checking.read_json(path, sealed=True).keys() == {"file_sha256", "a", "ä"}
    else:
        files.write_tensors(path, TENSORS, {"told": "x"})
    raw = path.read_bytes()
    for place in range(8 * len(raw)):
        flipped = raw[: place // 8] + bytes([raw[place // 8] ^ 1 << place % 8])
        path.write_bytes(flipped + raw[place // 8 + 1 :])
        with pytest.raises(checking.Damaged):
            checking.read_checked(path, sealed=True)
    path.write_bytes(raw)
    checking.read_checked(path, sealed=True)


def test_every_bit_of_a_line_is_covered(tmp_path):
    path = tmp_path / "lines.jsonl"
    end = files.append_lines(path, [{"a": 1}, {"b": "x"}], files.Mark(0, "first"))
    assert files.append_lines(path, [{"c": None}], end).lines == 3
    assert checking.read_lines(path, "first", linked=True) == [{"a": 1}, {"b": "x"}, {"c": None}]
    raw = path.read_bytes()
    assert all(json.loads(line)["link"] for line in raw.splitlines())
    for place in range(8 * (len(raw) - 1)):  # the last byte makes the last line an unfinished one
        flipped = raw[: place // 8] + bytes([raw[place // 8] ^ 1 << place % 8])
        path.write_bytes(flipped + raw[place // 8 + 1 :])
        with pytest.raises(checking.Damaged, match=r"line [123] "):
            checking.read_lines(path, "first", linked=True)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(checking.Damaged, match="not a regular file"):
        checking.read_checked(tmp_path / "pipe")
