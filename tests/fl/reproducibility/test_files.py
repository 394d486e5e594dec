import numpy as np
import pytest

from fl.reproducibility import files
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
    assert files.read_lines(path) == []
    files.append_lines(path, [{"a": 1}, {"a": 2}])
    with path.open("a") as file:
        file.write('{"a": 3')
    assert files.read_lines(path) == [{"a": 1}, {"a": 2}]
    path.write_text('{"a": 1}\n{"a"\n{"a": 3}\n')
    with pytest.raises(ValueError, match="Expecting"):
        files.read_lines(path)


def test_a_number_that_json_does_not_know_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.append_lines(tmp_path / "lines.jsonl", [{"a": float("inf")}])
