"""The figures of a report: each is a part of its page, and files beside it."""

import re
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from experiments.report.drawing import figures
from experiments.report.markup import Html, inline_svg


@dataclass(frozen=True)
class Gallery:
    """Where figures go, and as what."""

    folder: Path
    pdf: bool
    """Whether each is also a PDF, which takes longer than the rest of a figure."""

    def picture(self, name: str, figure: Figure, description: str) -> Html:
        """Write a figure's files, and return it as a part of the page."""
        svg = figures.save(figure, self.folder / name, self.pdf)
        return inline_svg(svg, name, description)

    def optional(self, name: str, figure: Figure | None, description: str) -> Html | None:
        """Write a figure that only some reports have; without one, an older report's files go."""
        if figure is not None:
            return self.picture(name, figure, description)
        self.remove(f"{name}.*")
        return None

    def remove(self, pattern: str) -> None:
        """Remove the files of an older report."""
        for old in self.folder.glob(pattern):
            old.unlink()


def slug(text: str) -> str:
    """Write a title as a file's name."""
    return re.sub(r"[^a-z0-9.]+", "-", text.lower().replace("α", "alpha")).strip("-")
