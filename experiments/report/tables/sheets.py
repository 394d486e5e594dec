"""The tables of a page as files: each as CSV and as LaTeX, of what the page shows."""

import csv
import io
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

from experiments.report.markup import TABLE
from experiments.report.tables import latex
from fl.reproducibility.files import write_whole


@dataclass
class Cell:
    """What a cell shows."""

    across: int = 1
    """Columns that it spans."""
    down: int = 1
    """Rows that it spans."""
    number: bool = False
    strong: bool = False
    """Whether the page stresses it."""
    part: bool = False
    """Whether it is the heading of the rows below it."""
    text: str = ""
    remarks: list[str] = field(default_factory=list)
    """What stands below, in small."""


@dataclass
class Sheet:
    """A table."""

    name: str
    head: list[list[Cell]] = field(default_factory=list)
    bodies: list[list[list[Cell]]] = field(default_factory=list)

    @property
    def heads(self) -> list[list[tuple[int, Cell]]]:
        """The cells of each row of the head, and the columns in which they begin, from 0."""
        found: list[list[tuple[int, Cell]]] = []
        taken: dict[int, int] = {}
        for at, row in enumerate(self.head):
            found.append([])
            column = 0
            for cell in row:
                while taken.get(column, 0) > at:
                    column += 1
                found[-1].append((column, cell))
                taken |= dict.fromkeys(range(column, column + cell.across), at + cell.down)
                column += cell.across
        return found

    @property
    def titles(self) -> list[str]:
        """The words over each column, from the uppermost head to the lowest."""
        found: dict[int, list[str]] = {}
        for column, cell in (placed for row in self.heads for placed in row):
            for across in range(column, column + cell.across):
                found.setdefault(across, []).append(cell.text)
        return [": ".join(filter(None, found[column])) for column in sorted(found)]


class _Reader(HTMLParser):
    """Finds the tables of a page that we wrote, in which every tag is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.sheets: list[Sheet] = []
        self.rows: list[list[Cell]] | None = None
        self.cell: Cell | None = None
        self.small = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {key: value or "" for key, value in attrs}
        if tag == "table" and found.get("id", "").startswith(TABLE):
            self.sheets.append(Sheet(found["id"].removeprefix(TABLE)))
        elif tag == "thead":
            self.rows = self.sheets[-1].head
        elif tag == "tbody":
            self.rows = []
            self.sheets[-1].bodies.append(self.rows)
        elif tag == "tr" and self.rows is not None:
            self.rows.append([])
        elif tag in ("td", "th") and self.rows:
            looks = found.get("class", "").split()
            spans = int(found.get("colspan", "1")), int(found.get("rowspan", "1"))
            self.cell = Cell(*spans, number="number" in looks, part="part" in looks)
            self.rows[-1].append(self.cell)
        elif tag == "small" and self.cell:
            self.small = True
            self.cell.remarks.append("")
        elif tag == "strong" and self.cell:
            self.cell.strong = True

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self.cell = None
        elif tag == "table":
            self.rows = None
        elif tag == "small":
            self.small = False

    def handle_data(self, data: str) -> None:
        if self.cell and self.small:
            self.cell.remarks[-1] += data
        elif self.cell:
            self.cell.text += data


def read(page: str) -> list[Sheet]:
    """Return the tables of a page, in their order."""
    reader = _Reader()
    reader.feed(page)
    reader.close()
    return reader.sheets


def as_csv(sheet: Sheet) -> str:
    """Write a table as CSV: titles of several heads in one, headings of rows as a first column."""
    parts = any(row[0].part for body in sheet.bodies for row in body)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*(["part"] if parts else []), *sheet.titles])
    for body in sheet.bodies:
        part = ""
        for row in body:
            if row[0].part:
                part = row[0].text
            else:
                writer.writerow([*([part] if parts else []), *map(_plain, row)])
    return out.getvalue()


def _plain(cell: Cell) -> str:
    """Write a cell on one line, its minus as a computer reads it."""
    return "; ".join([cell.text, *cell.remarks]).replace("−", "-")


def write(page: str, folder: Path) -> None:
    """Write each table of a page as `NAME.csv` and `NAME.tex`; those of an older page go."""
    found = read(page)
    for old in folder.glob("*.tex"):
        old.unlink()
        old.with_suffix(".csv").unlink(missing_ok=True)
    for sheet in found:
        write_whole(folder / f"{sheet.name}.csv", as_csv(sheet))
        write_whole(folder / f"{sheet.name}.tex", latex.table(sheet))
