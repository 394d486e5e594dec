"""A table that others published, as a study declares it: a report puts our numbers beside it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

from fl.config.parsing import ConfigError, Value
from fl.config.parts.contrasts import Flat, Knobs, chosen, spelled

Number = int | float
Cell = Number | tuple[Number, Number] | None
"""A mean; a mean and its standard deviation over seeds; or None, where nothing was published."""


@dataclass(frozen=True)
class Published:
    """A table that others published, whose cells a study asks again under its own conditions.

    Knobs tell cells apart, as in `Contrasts`: a cell has those of its row and those of its column.
    """

    source: str
    """Where it stands: arXiv id, table, and repository."""
    setup: str
    """Under which conditions its numbers came about."""
    columns: tuple[Knobs, ...]
    """Most often the circumstances, such as `{"partition.alpha": 0.1}`."""
    rows: tuple[tuple[Knobs, tuple[Cell, ...]], ...]
    """Most often the methods, each with a cell for every column. In per cent, if the metric is a
    fraction, or in units of the metric."""
    differences: tuple[str, ...] = ()
    """In what the study's conditions differ from those, a phrase each."""

    def cells(self) -> Iterator[tuple[dict[str, Value], Number, Number | None]]:
        """Yield the cells that have a number: knobs, mean, and deviation where it is known."""
        for row, numbers in self.rows:
            for column, number in zip(self.columns, numbers, strict=True):
                if number is not None:
                    mean, deviation = number if isinstance(number, Sequence) else (number, None)
                    yield {**row, **column}, mean, deviation

    def check(self, flats: Sequence[Flat]) -> None:
        """Check that it fits a study.

        Args:
            flats: the knobs that bear on each of its experiments.

        Raises:
            ConfigError: a row has too many numbers or too few, or no experiment is a cell's.
        """
        for row, numbers in self.rows:
            if len(numbers) != len(self.columns):
                raise ConfigError(
                    f"published: the row {spelled(row)} of {self.source} has {len(numbers)} "
                    f"numbers for {len(self.columns)} columns"
                )
        for knobs, *_ in self.cells():
            if not any(chosen(flat, knobs) for flat in flats):
                raise ConfigError(f"published: no experiment of the study has {spelled(knobs)}")

    def told(self) -> dict[str, object]:
        """Return what a study's file says of it."""
        return asdict(self)

    @classmethod
    def of(cls, told: Mapping) -> "Published":
        """Return the table that a study's file tells of."""
        rows = tuple((row, tuple(numbers)) for row, numbers in told["rows"])
        lists = {key: tuple(told[key]) for key in ("columns", "differences")}
        return cls(told["source"], told["setup"], rows=rows, **lists)
