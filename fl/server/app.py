"""The server: asks clients, folds their replies into the next network, and keeps the journal."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import assert_never

import numpy as np
import platformdirs
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import Strategy

from fl.config import DEVICES, Experiment
from fl.config.parsing import ConfigError
from fl.data import Dataset, deal, load
from fl.fleet import available
from fl.messages import records
from fl.nn import moments, settled
from fl.reproducibility import determinism
from fl.reproducibility.files import fingerprint
from fl.reproducibility.provenance import conditions
from fl.reproducibility.seeds import stream, torch_stream
from fl.server.journal import Journal, model_sha256
from fl.server.nodes import Federation
from fl.server.rounds import Played, Rounds
from fl.training import parameters
from strategies import private
from strategies.fedavg import FedAvg
from strategies.fedprox import FedProx

app = ServerApp()

Watch = Callable[[dict], None]
"""Is called with every line of `rounds.jsonl`, also with those of rounds that were resumed."""


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the experiment of Flower's run config, as `flwr run` starts it."""
    knobs = Experiment.from_flat(context.run_config)
    default = platformdirs.user_data_path("fednf") / "runs" / str(context.run_id)
    journal = Journal(Path(knobs.run.dir) if knobs.run.dir else default)
    serve(grid, knobs, journal, resume=knobs.run.resume, started_by={"command": "flwr run"})


def serve(
    grid: Grid,
    knobs: Experiment,
    journal: Journal,
    *,
    resume: bool = False,
    watch: Watch = lambda line: None,
    started_by: Mapping[str, object],
) -> dict:
    """Run an experiment on a grid, from the start or from its checkpoint, and return its result.

    Args:
        grid: where the clients are.
        knobs: what to run.
        journal: where to write it.
        resume: whether an unfinished run in that folder may be gone on with.
        watch: called after every round.
        started_by: how to repeat it, for `experiment.json`.

    Raises:
        ConfigError: the knobs, the data or the folder don't allow it; nothing was written.
        FederationError: too few devices can be asked.
    """
    determinism.settle()
    journal.check(knobs, resume)
    if result := journal.result():
        for line in journal.rounds():
            watch(line)
        return result
    federation, dataset = _gathered(grid, knobs)
    network = parameters.network(as_shared(knobs), torch_stream(knobs.seed, "init"), dataset.form)
    surroundings = {**started_by, **conditions(), **_data_conditions(knobs), **_brought(federation)}
    surroundings["trained_on"] = parameters.device_name(network)
    surroundings["auto"] = _settled(knobs)
    pooled = moments(network.module) if knobs.state.bn == "pooled" else {}
    strategy = _private(knobs, federation, _strategy(knobs, federation, pooled), network)
    rounds = Rounds(grid, knobs, journal, network, strategy, federation, dataset)
    with journal.alone():
        journal.check(knobs, resume)  # again: another process may have been here meanwhile
        journal.begin(knobs, surroundings)
        return _play(rounds, journal, watch)


def rehearse(knobs: Experiment) -> None:
    """Do all of an experiment that can fail for its knobs, without a client and without a file.

    Raises:
        ConfigError: the network, its device, the data or the deal are impossible.
    """
    parameters.network(knobs, torch_stream(knobs.seed, "init"))
    deal(knobs)


def _gathered(grid: Grid, knobs: Experiment) -> tuple[Federation, Dataset]:
    """Return the federation, complete, and what the server has of its data.

    Raises:
        ConfigError: the knobs are impossible, which is found before anybody is waited for.
        FederationError: too few devices can be asked.
    """
    if knobs.data.name == DEVICES:
        federation = Federation(grid, knobs)
        federation.gather()
        assert federation.form is not None
        return federation, Dataset.nothing(DEVICES, federation.form)
    rehearse(knobs)
    dataset = load(knobs.data.name)
    federation = Federation(grid, knobs, dataset.form)
    federation.gather()
    return federation, dataset


def _play(rounds: Rounds, journal: Journal, watch: Watch) -> dict:
    """Play the rounds that are missing, and write the result."""
    behind: list[Played] = []
    """The last round, until it is permanent."""

    def catch_up() -> None:
        if behind:
            watch(rounds.finish(behind.pop()))

    checkpoint = journal.checkpoint()
    if checkpoint is None:
        first = rounds.begin()
        number, model = 0, first.model
        behind.append(first)
    else:
        rounds.restore(checkpoint)
        number, model = checkpoint.round, checkpoint.model
        for line in journal.rounds():
            watch(line)
    try:
        while number < rounds.knobs.rounds:
            number += 1
            played = rounds.play(number, model, catch_up)
            model = played.model
            behind.append(played)
    finally:
        catch_up()
    result = _result(journal.rounds(), model)
    journal.finish(result, model)
    return result


def as_shared(knobs: Experiment) -> Experiment:
    """Return the experiment whose network is what clients share: without what stays with them."""
    without = {"state.bn": "drop", "state.fixed-from": 0}
    return knobs.replace(without) if knobs.state.bn == "local" else knobs


def _strategy(knobs: Experiment, federation: Federation, pooled: Mapping[str, str]) -> FedAvg:
    """Return the strategy that the knobs name; it pools these variances with their means."""
    average = {
        "sample": knobs.sampling.clients,
        "nodes": federation.nodes,
        "available": lambda number: [
            client for client in available(knobs, number) if client in federation.nodes
        ],
        "stream": lambda number: stream(knobs.seed, "sampling", "round", number),
        "weight_key": records.WEIGHT,
        "arrays_key": records.ARRAYS,
        "config_key": records.CONFIG,
        "metrics_key": records.METRICS,
        "moments": pooled,
        "uniform": knobs.privacy.kind != "none",
    }
    match knobs.strategy.kind:
        case "fedavg":
            return FedAvg(**average)
        case "fedprox":
            return FedProx(mu=knobs.strategy.mu, mu_key=records.MU, **average)
        case unknown:
            assert_never(unknown)


def _private(
    knobs: Experiment, federation: Federation, average: FedAvg, network: parameters.FlatNetwork
) -> Strategy:
    """Return a strategy as private as the knobs want it.

    Raises:
        ConfigError: the noise could be repeated by devices that hold images of their own.
    """
    privacy = knobs.privacy
    if privacy.kind == "none":
        return average
    if privacy.noise_from == "seed" and privacy.noise and _brought(federation):
        raise ConfigError(
            "privacy.noise-from=seed: all devices know the seed and could take the noise off; set "
            "privacy.noise-from=system"
        )

    def noise(number: int) -> np.random.Generator:
        if privacy.noise_from == "system":
            return np.random.default_rng()
        return stream(knobs.seed, "privacy", "round", number)

    kind = private.ServerSide if privacy.kind == "server" else private.ClientSide
    covered = {part.name for part in network.segments}
    sampled = knobs.sampling.clients
    return kind(average, privacy.noise, privacy.clip, sampled, covered, noise)


def _settled(knobs: Experiment) -> dict[str, object]:
    """Return what became of the knobs that were left to the recipe and the skeleton."""
    given = knobs.to_flat()
    return {key: value for key, value in settled(knobs).to_flat().items() if given[key] != value}


def _data_conditions(knobs: Experiment) -> dict[str, object]:
    """Return the fingerprints of the data and of the deal, and the accuracy of guessing.

    Raises:
        ConfigError: the data can't be dealt like that.
    """
    if knobs.data.name == DEVICES:
        return dict.fromkeys(("data_sha256", "deal_sha256", "chance"))
    dataset = load(knobs.data.name)
    parts = deal(knobs)
    labels = dataset.test.labels
    return {
        "data_sha256": dataset.fingerprint,
        "deal_sha256": fingerprint({f"{i:06}": part.numpy() for i, part in enumerate(parts)}),
        "chance": float(labels.bincount().max()) / len(labels),
    }


def _brought(federation: Federation) -> dict[str, object]:
    """Return who has brought images of what form; nothing of a simulation, where nobody has."""
    if all(told.source == "dealt" for told in federation.members.values()):
        return {}
    keys = ("partition", "source", "images", "held_out", "packages")
    members = [federation.members[partition] for partition in sorted(federation.members)]
    return {"devices": [{key: getattr(told, key) for key in keys} for told in members]}


def _result(lines: list[dict], model: Mapping[str, np.ndarray]) -> dict:
    """Sum a run up."""
    chosen_by, best = _best(lines)
    total = {
        key: sum(line[key] for line in lines)
        for key in (
            "images",
            "train_seconds",
            "eval_seconds",
            "bytes_up",
            "bytes_down",
            "single_value_steps",
        )
    }
    return {
        "rounds": lines[-1]["round"],
        "final_accuracy": lines[-1]["test_accuracy"],
        "final_loss": lines[-1]["test_loss"],
        "best_accuracy": best.get("test_accuracy"),
        "best_round": best.get("round"),
        "best_chosen_by": chosen_by,
        "personal_accuracy_held_out": lines[-1]["personal_accuracy_held_out"],
        "model_sha256": model_sha256(model),
        "refused": sum(len(line["refused"]) for line in lines),
        "simulated_seconds": _simulated(lines),
        "images_per_second": total["images"] / max(total["train_seconds"], 1e-9),
        **total,
    }


def _best(lines: list[dict]) -> tuple[str | None, dict]:
    """Return by what the best round is chosen, and its line; nothing where the server can't tell.

    Held-out images of devices don't do: other devices in each round have others.
    """
    for chosen_by in ("validation_accuracy", "test_accuracy"):
        if lines[0][chosen_by] is not None:
            return chosen_by, max(lines, key=lambda line: line[chosen_by])
    return None, {}


def _simulated(lines: list[dict]) -> float | None:
    """Return the simulated seconds of all rounds; None without a simulated clock."""
    rounds = [line["simulated_seconds"] for line in lines if line["round"]]
    return None if None in rounds else sum(rounds)
