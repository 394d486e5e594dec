"""Rows of Arrow tables, as Hugging Face lays them out, into the arrays of a split.

An image is binary, or a struct of ``bytes`` and ``path``; a label is an integer, and names of
classes are in the schema's ``huggingface`` metadata (huggingface.co/docs/datasets, "Features").
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fl.config.parsing import ConfigError
from fl.data.formats.parts import Found, Part
from fl.data.formats.pixels import Stack
from fl.data.formats.reading import import_optional, reading

BATCH = 1024
"""Rows taken at a time."""

IMAGES = ("image", "img")
LABELS = ("label", "labels", "fine_label", "character")
OWNERS = ("writer_id", "client", "client_id", "domain", "subject", "user")
"""Names of columns, in the order of asking."""

Piece = tuple[str, int, Any]
"""A file, the place of the batch's first row in it, and the pyarrow.RecordBatch."""


@dataclass(frozen=True)
class Rows:
    """A split that is still in tables: a name for it, pyarrow.Schema, number of rows, and these."""

    where: str
    schema: Any
    count: int
    pieces: Callable[[list[str]], Iterable[Piece]]
    """Gives the rows of some columns."""


def found(layout: str, train: Rows, test: Rows) -> Found:
    """Decode both splits.

    Raises:
        ConfigError: no images, no labels, empty cells, undecodable images, classes that differ.
    """
    names = _names(train, _label(train))
    if _names(test, _label(test)) != names:
        raise ConfigError(f"{test.where}: the names of the classes are not those of {train.where}")
    return Found(layout, _part(train), _part(test), names)


def _part(rows: Rows) -> Part:
    image, label = _image(rows), _label(rows)
    owner = next((name for name in OWNERS if name in rows.schema.names), None)
    stack = Stack(rows.count)
    labels, owners = [], []
    columns = [image, label] if owner is None else [image, label, owner]
    for where, first, batch in rows.pieces(columns):
        for row, cell in enumerate(_cells(batch, image, where), first):
            if not cell.is_valid:
                raise ConfigError(f"{where}, row {row}: no image inside the file")
            stack.add(f"{where}, row {row}", cell.as_py())
        with reading(where):
            labels.append(_full(batch, label, where).to_numpy(zero_copy_only=False))
            if owner is not None:
                cells = _full(batch, owner, where)
                owners.append(_owner(cells, _names(rows, owner), f"{where}: column {owner}"))
    return Part(
        rows.where,
        stack.images,
        np.concatenate(labels) if labels else np.empty(0, np.int64),
        np.concatenate(owners) if owners else None,
    )


def _image(rows: Rows) -> str:
    """Return the name of the column that holds images."""
    fit = [field.name for field in rows.schema if _is_image(field.type)]
    named = next((name for name in IMAGES if name in fit), None)
    if named is None and len(fit) != 1:
        raise ConfigError(
            f"{rows.where}: {len(fit)} columns of image bytes, expected one or one named image; "
            f"columns: {', '.join(rows.schema.names)}"
        )
    return named or fit[0]


def _is_image(kind: Any) -> bool:
    types = import_optional("pyarrow").types
    if types.is_struct(kind):
        return any(field.name == "bytes" and _is_image(field.type) for field in kind)
    return types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind)


def _label(rows: Rows) -> str:
    """Return the name of the column that holds labels."""
    name = next((name for name in LABELS if name in rows.schema.names), None)
    if name is None:
        raise ConfigError(
            f"{rows.where}: no column of labels ({', '.join(LABELS)}); "
            f"columns: {', '.join(rows.schema.names)}"
        )
    kind = rows.schema.field(name).type
    if not import_optional("pyarrow").types.is_integer(kind):
        raise ConfigError(f"{rows.where}: column {name} is {kind}, expected whole numbers 0 to K-1")
    return name


def _names(rows: Rows, column: str) -> tuple[str, ...] | None:
    """Return the names that a ClassLabel column's numbers stand for."""
    raw = (rows.schema.metadata or {}).get(b"huggingface")
    if raw is None:
        return None
    with reading(f"{rows.where}, metadata"):
        names = json.loads(raw)["info"]["features"].get(column, {}).get("names")
        return None if names is None else tuple(map(str, names))


def _cells(batch: Any, column: str, where: str) -> Any:
    with reading(where):
        cells = batch.column(column)
        types = import_optional("pyarrow").types
        return cells.field("bytes") if types.is_struct(cells.type) else cells


def _full(batch: Any, column: str, where: str) -> Any:
    cells = batch.column(column)
    if cells.null_count:
        raise ConfigError(f"{where}: column {column} has {cells.null_count} empty cells")
    return cells


def _owner(cells: Any, names: tuple[str, ...] | None, where: str) -> np.ndarray:
    """Return owners as numbers if they are plain numbers, otherwise as text.

    Raises:
        ConfigError: a number stands for no name.
    """
    arrow = import_optional("pyarrow")
    if not arrow.types.is_integer(cells.type):
        return np.array(cells.cast(arrow.string()).to_pylist(), dtype=np.str_)
    numbers = cells.to_numpy(zero_copy_only=False)
    if names is None:
        return numbers
    outside = numbers[(numbers < 0) | (numbers >= len(names))]
    if len(outside):
        raise ConfigError(
            f"{where} has {outside[0]}, and there are {len(names)} names: 0 to {len(names) - 1}"
        )
    return np.array(names)[numbers]
