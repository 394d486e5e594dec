"""The command that uses a run's network: ``fednf predict``."""

import csv
import io
import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from torch import nn

from experiments.cli.terminal import Json, say
from experiments.predict import ANSWERS, Prediction, at_a_time, listed
from experiments.predict import predict as predictions
from fl.config.parsing import ConfigError
from fl.nn import BatchNorm
from fl.reproducibility.files import write_whole
from fl.server.result import load_model


def predict(
    run: Annotated[Path, typer.Argument(help="A run's folder. Code in its components/ is run.")],
    files: Annotated[
        list[Path], typer.Argument(help="Pictures, .npy or .npz, or folders of such files.")
    ],
    best: Annotated[
        bool, typer.Option("--best", help="The network of the best round, not of the last.")
    ] = False,
    top: Annotated[
        int, typer.Option("--top", min=1, help="How many of the most probable classes are shown.")
    ] = 1,
    out: Annotated[Path | None, typer.Option("--out", help="A CSV file to write.")] = None,
    as_json: Json = False,
) -> None:
    """Say which class each picture is, by the network of a run, and how probable that is."""
    model = load_model(run, "best" if best else "last")
    if (kind := model.knobs.task.kind) not in ANSWERS:
        raise ConfigError(
            f"{run} has task.kind={kind}, and fednf predict says classes; use fl.load_model in "
            "Python for its outputs"
        )
    if out and out.is_dir():
        raise ConfigError(f"--out={out} is a folder; name a file")
    state = model.knobs.state
    if state.local != "none":
        _tell(
            f"state.local={state.local}: clients keep these parameters, and the network here has "
            "what they began with"
        )
    if (state.bn == "drop" or state.keeps_statistics) and _has_batchnorm(model):
        which = "state.local=norm" if state.local == "norm" else f"state.bn={state.bn}"
        _tell(
            f"{which}: the network has no running statistics, so what it says of an example "
            f"depends on the others; all are taken {at_a_time(model)} at a time"
        )
    found, refused = [], []

    def refuse(line: str) -> None:
        refused.append(line)
        _tell(line)

    for prediction in predictions(model, listed(files), top, refuse):
        found.append(prediction)
        said = ", ".join(f"{name} {probability:.3f}" for name, probability in prediction.classes)
        say(f"{prediction.name}: {said}")
    if not found:
        raise ConfigError("none of the files could be read")
    if out:
        write_whole(out, _as_csv(found))
    if as_json:
        rows = [{"file": x.name, "classes": dict(x.classes)} for x in found]
        say(json.dumps({"predictions": rows, "refused": refused}))


def _has_batchnorm(model: nn.Module) -> bool:
    return any(isinstance(layer, BatchNorm) for layer in model.modules())


def _tell(line: str) -> None:
    sys.stderr.write(f"fednf: {' '.join(line.split())}\n")


def _as_csv(found: list[Prediction]) -> str:
    """Return a line for each class of each prediction, with its rank from 1."""
    text = io.StringIO()
    sheet = csv.writer(text, lineterminator="\n")
    sheet.writerow(("file", "place", "rank", "class", "probability"))
    for one in found:
        for rank, (name, probability) in enumerate(one.classes, 1):
            place = "" if one.place is None else one.place
            sheet.writerow((one.file, place, rank, name, probability))
    return text.getvalue()
