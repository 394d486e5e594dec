"""Hugging Face's parquet files: ``SPLIT-*.parquet`` or ``SPLIT.parquet``, here or in ``data/``."""

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from fl.config.parsing import ConfigError
from fl.data.formats import arrow
from fl.data.formats.parts import Found
from fl.data.formats.reading import TESTS, import_optional, reading, test_split

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
        with reading(str(file)):
            schema = schema or parquet.read_schema(file)
            count += parquet.read_metadata(file).num_rows
    return arrow.Rows(str(files[0]), schema, count, partial(_pieces, files))


def _pieces(files: list[Path], columns: list[str]) -> Iterator[arrow.Piece]:
    for file in files:
        first = 0
        with reading(str(file)), import_optional("pyarrow.parquet").ParquetFile(file) as opened:
            for batch in opened.iter_batches(arrow.BATCH, columns=columns):
                yield str(file), first, batch
                first += len(batch)
