"""Data sets of the Hugging Face hub by their id, through the optional package ``datasets``."""

from collections.abc import Iterator
from functools import partial
from typing import Any

from fl.config.parsing import ConfigError
from fl.data.dataset import Dataset
from fl.data.formats import arrow
from fl.data.formats.parts import dataset
from fl.data.formats.reading import import_optional, reading, test_split

_MAJOR = 4  # older releases run a repository's own Python


def hub(repo: str) -> Dataset:
    """Load ``hf:REPO_ID`` from the hub, or from the cache that ``datasets`` keeps of it.

    Columns are found as in parquet files; a validation split stands in for a missing test split.

    Raises:
        ConfigError: no package, no such data set, no connection, or columns that don't fit.
    """
    package = import_optional("datasets", f'pip install "datasets>={_MAJOR}"')
    if int(package.__version__.partition(".")[0]) < _MAJOR:
        raise ConfigError(
            f"datasets {package.__version__} may run a repository's code: "
            f'pip install "datasets>={_MAJOR}"'
        )
    name = f"hf:{repo}"
    with reading(name):
        splits = package.load_dataset(repo)
    test = test_split(splits, name)
    layout = "Hugging Face hub" + ("" if test == "test" else f", tested on {test}")
    found = arrow.found(
        layout, _rows(f"{name}, train", splits["train"]), _rows(f"{name}, {test}", splits[test])
    )
    card = f"https://huggingface.co/datasets/{repo}"
    return dataset(found, name, card, f"unknown: see {card}")


def _rows(where: str, split: Any) -> arrow.Rows:
    return arrow.Rows(
        where, split.features.arrow_schema, len(split), partial(_pieces, where, split)
    )


def _pieces(where: str, split: Any, columns: list[str]) -> Iterator[arrow.Piece]:
    first = 0
    with reading(where):
        for table in split.select_columns(columns).with_format("arrow").iter(arrow.BATCH):
            for batch in table.to_batches():
                yield where, first, batch
                first += len(batch)
