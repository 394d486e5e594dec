"""By which statistics BatchNorm's trained networks are right: running ones, or a batch's own.

``python -m experiments.studies.answer.mechanism RUN ...`` prints a table of runs' last networks.
"""

import csv
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F

from fl import ConfigError, load_model
from fl.data import Split, load
from fl.nn import forget_statistics, statistics
from fl.server.journal import Journal
from fl.training.standardized import Standardized

RUNNING = "running"
SIZES = (1, 4, 250)
"""Test images that are normalized together, where it is not by running statistics."""
KNOBS = ("recipe", "state.bn", "client.batch-size", "partition.kind", "partition.alpha", "seed")
COLUMNS = (*KNOBS, "model_sha256", "statistics", "accuracy", "loss")
_AT_A_TIME = 250
"""Images, whatever normalizes them."""


def scored(run: Path) -> Iterator[dict[str, object]]:
    """Yield how a run's last network does on all test images, a row each kind of statistics.

    `statistics` of a row is `RUNNING`, or how many images are normalized by their own; they are
    spread over all test images, as in a run's evaluation. A layer that sees one value a channel
    has no statistics of one image, and gives its bias.

    Args:
        run: the folder of a run.

    Raises:
        ConfigError: it is not a finished run of a classification whose network has running
            statistics.
    """
    model = load_model(run)
    if model.knobs.task.kind != "classification":
        raise ConfigError(f"{run} has task.kind={model.knobs.task.kind}; give a classification")
    if not statistics(model):
        raise ConfigError(f"{run}: its network has no running statistics; give one of BatchNorm's")
    journal = Journal(run)
    if (result := journal.result()) is None:
        raise ConfigError(f"{run} is not finished; go on with it first")
    knobs, test = journal.header()["knobs"], load(model.knobs).test
    told = {**{key: knobs[key] for key in KNOBS}, "model_sha256": result["model_sha256"]}
    yield {**told, "statistics": RUNNING, **_score(model, test, _AT_A_TIME)}
    forget_statistics(model)
    for size in SIZES:
        yield {**told, "statistics": size, **_score(model, test, size)}


@torch.inference_mode()
def _score(model: Standardized, test: Split, size: int) -> dict[str, float]:
    """Return accuracy and mean loss on all images, in batches of this size, or one image less.

    Batches of one size are lanes of one pass, and none knows of the others.
    """
    step = -(-len(test) // size)
    of_size = dict[int, list[torch.Tensor]]()
    for start in range(step):
        places = torch.arange(start, len(test), step)
        of_size.setdefault(len(places), []).append(places)
    outputs = torch.empty(len(test), len(model.classes), dtype=torch.float64)
    for most, batches in of_size.items():
        places = torch.stack(batches)
        found = torch.vmap(model, chunk_size=max(1, _AT_A_TIME // most))(test.images[places])
        outputs[places] = found.double()
    right = outputs.argmax(1) == test.labels
    loss = F.cross_entropy(outputs, test.labels)
    return {"accuracy": right.double().mean().item(), "loss": loss.item()}


def main(runs: Sequence[str]) -> int:
    """Print the rows of runs as CSV, and return the program's status."""
    if not runs:
        sys.stderr.write("give folders of finished runs\n")
        return 2
    try:
        rows = [row for run in runs for row in scored(Path(run))]
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    table = csv.DictWriter(sys.stdout, COLUMNS, lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
