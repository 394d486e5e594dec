"""What a run came to, summed up from the lines of its rounds."""

from fl.server.failures import RunFailed
from fl.server.journal import Arrays, model_sha256

_TOTALS = (
    "images",
    "train_seconds",
    "eval_seconds",
    "bytes_up",
    "bytes_down",
    "single_value_steps",
)


def summarize(lines: list[dict], model: Arrays) -> dict:
    """Return the result of a run.

    Args:
        lines: those of `rounds.jsonl`.
        model: the network after the last round.

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
    chosen_by, best = _best(lines)
    totals = {key: sum(line[key] for line in lines) for key in _TOTALS}
    return {
        "rounds": lines[-1]["round"],
        "final_accuracy": lines[-1]["test_accuracy"],
        "final_loss": lines[-1]["test_loss"],
        "best_accuracy": best.get("test_accuracy"),
        "best_round": best.get("round"),
        "best_chosen_by": chosen_by,
        "personal_accuracy_held_out": lines[-1]["personal_accuracy_held_out"],
        "model_sha256": model_sha256(model),
        "refused": len(refused),
        "simulated_seconds": _simulated(lines),
        "images_per_second": totals["images"] / max(totals["train_seconds"], 1e-9),
        **totals,
    }


def _best(lines: list[dict]) -> tuple[str | None, dict]:
    """Return by what the best round is chosen, and its line; nothing where the server can't tell.

    Held-out images of devices can't choose it: the devices of each round hold other images.
    """
    for chosen_by in ("validation_accuracy", "test_accuracy"):
        if lines[0][chosen_by] is not None:
            return chosen_by, max(lines, key=lambda line: line[chosen_by])
    return None, {}


def _simulated(lines: list[dict]) -> float | None:
    """Return the simulated seconds of all rounds; None without a simulated clock."""
    rounds = [line["simulated_seconds"] for line in lines if line["round"]]
    return None if None in rounds else sum(rounds)
