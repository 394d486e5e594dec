"""A contact sheet: what the examples of a data set look like, a row a class."""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from experiments.report.drawing.figures import INK
from fl.data import Dataset

EXAMPLES, MOST_CLASSES = 10, 20


def contact_sheet(dataset: Dataset, labels: np.ndarray, names: Sequence[str]) -> Figure:
    """Draw the first training examples of each class (at most 20): images, slices or signals.

    Args:
        dataset: whose examples.
        labels: the class of each training example.
        names: of the classes.
    """
    classes = names[:MOST_CLASSES]
    with mpl.rc_context({"font.family": "DejaVu Sans", "font.size": 8, "text.color": INK}):
        figure = Figure(figsize=(8.2, 0.4 + 0.72 * len(classes)), layout="constrained")
        grid = figure.subplots(len(classes), EXAMPLES, squeeze=False)
        for number, (name, row) in enumerate(zip(classes, grid, strict=True)):
            places = np.flatnonzero(labels == number)[:EXAMPLES].tolist()
            for axes in row:
                axes.axis("off")
            for axes, place in zip(row, places, strict=False):
                _draw(axes, dataset.train.images[place])
            row[0].text(-0.15, 0.5, name, transform=row[0].transAxes, ha="right", va="center")
        hidden = len(names) - len(classes)
        more = f"; {hidden} more classes" if hidden else ""
        figure.suptitle(f"{dataset.name}: training examples by class{more}", fontsize=9.5)
    return figure


def _draw(axes: Axes, example: Tensor) -> None:
    """Draw a signal as lines, an image as it is, and the middle slice of a volume."""
    if example.ndim == 2:
        axes.plot(example.T.numpy(), linewidth=0.5)
        return
    image = example if example.ndim == 3 else example[:, example.shape[1] // 2]
    if image.dtype != torch.uint8:  # in units of its own, which become shades
        low, high = image.min(), image.max()
        image = (255 * (image - low) / (high - low).clamp(min=1e-30)).byte()
    if image.shape[0] in (3, 4):
        axes.imshow(image[:3].permute(1, 2, 0).numpy())
    else:
        axes.imshow(image[0].numpy(), cmap="gray", vmin=0, vmax=255)
