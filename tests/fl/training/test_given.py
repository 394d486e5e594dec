"""Files of weights to start from: what their headers claim is looked at before memory is taken."""

import json
import struct

import pytest
import torch

from fl.config.parsing import ConfigError
from fl.training.given import start_from
from fl.training.parameters import build_network


def head(tensors: dict) -> bytes:
    """Write the header of a safetensors file: its length, and what it says of tensors."""
    text = json.dumps(tensors).encode()
    return struct.pack("<Q", len(text)) + text


FLOATS = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}
HEADERS = {
    "longer than any memory": (struct.pack("<Q", 2**60) + b"{}", "header too large"),
    "longer than the file": (struct.pack("<Q", 1_000) + b"{}", "invalid header length"),
    "none": (b"", "header too small"),
    "of one tensor more than there is": (head({"a": FLOATS}) + bytes(8), "not fully covered"),
    "of a tensor of 4 TB": (
        head({"a": {**FLOATS, "shape": [10**12], "data_offsets": [0, 4 * 10**12]}}),
        "not fully covered",
    ),
    "of other sizes": (head({"a": {**FLOATS, "shape": [3]}}) + bytes(16), "invalid shape"),
    "of bytes that two tensors share": (head({"a": FLOATS, "b": FLOATS}) + bytes(16), "offset"),
    "of a type that nobody knows": (head({"a": {**FLOATS, "dtype": "Q9"}}) + bytes(16), "JSON"),
    "of brackets": (struct.pack("<Q", 100_000) + b"[" * 100_000, "JSON"),
    "of no tensors": (head({}), "12 tensors missing"),
}


def test_a_header_of_weights_that_lies_is_one_line(tiny, tmp_path):
    file = tmp_path / "w.safetensors"
    network = build_network(tiny(), torch.Generator())
    for name, (raw, said) in HEADERS.items():
        file.write_bytes(raw)
        with pytest.raises(ConfigError, match=said) as error:
            start_from(network, tiny({"run.start-from": str(file)}).run)
        assert str(file) in str(error.value), name
        assert len(str(error.value)) < 700, name
    with file.open("r+b") as made:
        made.truncate(10**13)
    with pytest.raises(ConfigError, match="has 10 TB; this machine has"):
        tiny({"run.start-from": str(file)})
