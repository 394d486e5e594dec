"""What a run came to: the figures of its rounds, and its network, ready for use."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch

from fl.config import Experiment
from fl.config.parsing import ConfigError
from fl.data import Form, load
from fl.reproducibility.files import at_home
from fl.server.failures import RunFailed
from fl.server.journal import BEST, EXPERIMENT, MODEL, Arrays, Journal, best_of, model_sha256
from fl.tasks import objective
from fl.training.parameters import as_shared, build_network
from fl.training.standardized import Standardized, describe

_TOTALS = (
    "images",
    "train_seconds",
    "eval_seconds",
    "bytes_up",
    "bytes_down",
    "steps",
    "single_value_steps",
)


def summarize(lines: list[dict], model: Arrays, knobs: Experiment) -> dict:
    """Return the result of a run.

    Args:
        lines: those of `rounds.jsonl`.
        model: the network after the last round.
        knobs: of the run.

    Raises:
        RunFailed: clients were asked, and no reply could be used in any round.
    """
    refused = [refusal for line in lines for refusal in line["refused"]]
    if refused and not any(line["replied"] for line in lines):
        raise RunFailed(
            f"no reply could be used in {lines[-1]['round']} rounds, so nothing was trained; "
            f"{len(refused)} were refused, the first of client {refused[0]['partition']}: "
            f"{refused[0]['reason']}"
        )
    metric = objective(knobs).primary
    chosen_by, best = best_of(lines, metric)
    name = metric.name
    totals = {key: sum(line.get(key, 0) for line in lines) for key in _TOTALS}
    clipped = sum(line["steps"] * line["clipped_share"] for line in lines if line.get("steps"))
    return {
        "rounds": lines[-1]["round"],
        "ended_by": ending(lines, knobs),
        "metric": name,
        f"final_{name}": lines[-1][f"test_{name}"],
        "final_loss": lines[-1]["test_loss"],
        f"best_{name}": best.get(f"test_{name}"),
        "best_round": best.get("round"),
        "best_chosen_by": chosen_by,
        f"personal_{name}_held_out": lines[-1][f"personal_{name}_held_out"],
        "model_sha256": model_sha256(model),
        "refused": len(refused),
        "simulated_seconds": _simulated(lines),
        "images_per_second": totals["images"] / max(totals["train_seconds"], 1e-9),
        **totals,
        "clipped_share": clipped / totals["steps"] if totals["steps"] else None,
    }


def load_model(
    folder: str | Path,
    which: Literal["last", "best"] = "last",
    moments: tuple[Sequence[float], Sequence[float]] | None = None,
) -> Standardized:
    """Return the network of a finished run, on the CPU and in eval mode.

    It takes examples as they are in the data, such as pixels from 0 to 255, as bytes or as floats:
    (batch, channels, *space). It standardizes them by itself, as training did.

    Args:
        folder: of the run.
        which: the network after the last round, or after the best one, which
            ``best_round`` of ``result.json`` names.
        moments: mean and standard deviation of each channel, where the run does not know them since
            each device standardized by its own.

    Returns:
        A module with `shape`, `classes` (names, in the order of the outputs), `values` (the type of
        the data), `knobs` and `network`, which takes standardized examples.

    Raises:
        ConfigError: the folder has no such network, or `moments` are needed.

    Examples:
        >>> model = load_model("runs/one")  # doctest: +SKIP
        >>> images = torch.zeros(2, *model.shape, dtype=torch.uint8)  # doctest: +SKIP
        >>> [model.classes[k] for k in model(images).argmax(1)]  # doctest: +SKIP
    """
    journal, kept = Journal(at_home(folder)), {"last": MODEL, "best": BEST}
    if which not in kept:
        raise ConfigError(f"which={which!r}, expected 'last' or 'best'")
    if not (journal.folder / EXPERIMENT).is_file():
        raise ConfigError(f"{folder} holds no run: it has no {EXPERIMENT}")
    knobs = Experiment.from_flat(journal.header()["knobs"]).replace({"device": "cpu"})
    tensors, about = journal.network(kept[which])
    if not about:  # a run from before this was kept
        about = describe(knobs, load(knobs))
    shape, classes = tuple(about["shape"]), tuple(about["classes"])
    if moments is None and about["mean"] is not None:
        moments = about["mean"], about["std"]
    if moments is None:
        raise ConfigError(
            f"{folder}: each device standardized by its own images, so the run has no mean and "
            "deviation; give load_model(..., moments=(mean, std))"
        )
    network = build_network(as_shared(knobs), torch.Generator(), Form(shape, len(classes)))
    network.load(tensors)
    whole = Standardized(network.module, knobs, shape, classes, moments, about["values"])
    return whole.eval()


def ending(lines: Sequence[dict], knobs: Experiment) -> str | None:
    """Return the knob, with its value, by which a run ends with the last of its lines, if it does.

    `run.patience` ends it after so many rounds without a better score on the validation images than
    the best one until then, that before the first round included. Only a round that is evaluated on
    them says so.
    """
    if lines[-1]["round"] >= knobs.rounds:
        return f"rounds={knobs.rounds}"
    patience = knobs.run.patience
    if not patience:
        return None
    chosen_by, found = best_of(lines, objective(knobs).primary)
    if chosen_by and lines[-1][chosen_by] is None:
        return None
    best = found.get("round", 0)
    return f"run.patience={patience}" if lines[-1]["round"] - best >= patience else None


def _simulated(lines: list[dict]) -> float | None:
    """Return the simulated seconds of all rounds; None without a simulated clock."""
    rounds = [line["simulated_seconds"] for line in lines if line["round"]]
    return None if None in rounds else sum(rounds)
