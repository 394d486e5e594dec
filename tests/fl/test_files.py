import numpy as np
import pytest

from fl import files
from fl.files import fingerprint, write_whole


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
