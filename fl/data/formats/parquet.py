"""Hugging Face's parquet files: ``SPLIT-*.parquet`` or ``SPLIT.parquet``, here or in ``data/``."""

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from fl.config.parsing import ConfigError
from fl.data.formats import arrow
from fl.data.formats.parts import Found
from fl.data.formats.reading import TESTS, import_optional, reading, test_split
from fl.reproducibility.machine import check_file, fits, free_memory

_ROOM = 8
"""The part of memory that rows under way may take: an eighth."""
_NAME = re.compile(rf"(train|{'|'.join(TESTS)})(?:-\d+-of-(\d+))?(?:-.*)?\.parquet")


def holds(path: Path) -> bool:
    """Whether a folder, or ``data`` in it, has parquet files named for splits."""
    return bool(_files(path))


def read(path: Path) -> Found:
    """Decode all rows of the training and the test split."""
    files = _files(path)
    test = test_split(files, str(path))
    layout = "Hugging Face parquet" + ("" if test == "test" else f", tested on {test}")
    return arrow.found(layout, _rows(files["train"]), _rows(files[test]))


def _files(path: Path) -> dict[str, list[Path]]:
    """Return the files of every split, in the order of their names."""
    for folder in (path / "data", path):
        files: dict[str, list[Path]] = {}
        for file in sorted(folder.iterdir()) if folder.is_dir() else ():
            if match := _NAME.fullmatch(file.name):
                files.setdefault(match[1], []).append(file)
        if files:
            return files
    return {}


def _rows(files: list[Path]) -> arrow.Rows:
    """Open a split's files; one that says ``-of-N`` has to be one of N."""
    for file in files:
        match = _NAME.fullmatch(file.name)
        if match and match[2] and int(match[2]) != len(files):
            raise ConfigError(f"{file}: {len(files)} of {int(match[2])} files of the split found")
    parquet = import_optional("pyarrow.parquet")
    count, schema = 0, None
    for file in files:
        check_file(file)
        with reading(str(file)):
            schema = schema or parquet.read_schema(file)
            count += parquet.read_metadata(file).num_rows
    return arrow.Rows(str(files[0]), schema, count, partial(_pieces, files))


def _pieces(files: list[Path], columns: list[str]) -> Iterator[arrow.Piece]:
    for file in files:
        first = 0
        with reading(str(file)), import_optional("pyarrow.parquet").ParquetFile(file) as opened:
            for batch in opened.iter_batches(_batch(opened.metadata, file), columns=columns):
                yield str(file), first, batch
                first += len(batch)


def _batch(metadata: Any, file: Path) -> int:
    """Return how many rows are taken at a time, so that memory holds them whatever is in them.

    A value that is written once, in a dictionary, may be every row's; then rows are as long as the
    whole column at the most, and 227 kB of a file could ask for 9.5 GiB.

    Raises:
        ConfigError: memory does not hold a group of rows.
    """
    longest = 1
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        columns = [group.column(place) for place in range(group.num_columns)]
        whole = sum(column.total_uncompressed_size for column in columns)
        fits(f"{file}: a group of {group.num_rows:,} rows, unpacked, is", whole)
        repeated = [c.total_uncompressed_size for c in columns if c.has_dictionary_page]
        longest = max(longest, *repeated, 1)
    return max(1, min(arrow.BATCH, free_memory() // _ROOM // longest))
