import subprocess
import sys

import numpy as np

from fl.data.formats import read


def test_an_unknown_layout_or_path_says_what_is_accepted(tmp_path, refusal):
    for path in (tmp_path, tmp_path / "a.tar.gz"):
        if path != tmp_path:
            path.write_bytes(b"x")
        assert str(path) in refusal(path)
        for word in ("IDX", "cifar-10-batches-py", "MedMNIST", "Keras", "parquet", "CLASS/*.png"):
            assert word in refusal(path)
    assert refusal(tmp_path / "no") == f"{tmp_path / 'no'} does not exist"


def test_pixels_are_not_copied_when_they_lie_as_needed(tmp_path, monkeypatch):
    arrays = {"x_train": np.zeros((2, 3, 3), np.uint8), "y_train": np.arange(2)}
    arrays |= {"x_test": arrays["x_train"], "y_test": arrays["y_train"]}
    np.savez(tmp_path / "a.npz", **arrays)
    kept = []
    original = np.ascontiguousarray
    monkeypatch.setattr(np, "ascontiguousarray", lambda a: kept.append(a) or original(a))
    data = read(tmp_path / "a.npz")
    assert len(kept) == 2
    for array, split in zip(kept, (data.train, data.test), strict=True):
        assert np.shares_memory(array, split.images.numpy())


def test_a_device_loads_neither_pillow_nor_pyarrow():
    code = "import fl.data.formats, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert not loaded & {"PIL", "pyarrow", "datasets"}
    assert "numpy" in loaded
