"""The server: asks clients, folds their replies into the next network, and keeps the journal."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import assert_never

import numpy as np
import platformdirs
from flwr.app import Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp

from fl import flat, training, wire
from fl.config import Experiment
from fl.data import deal, load
from fl.files import fingerprint
from fl.fleet import available
from fl.journal import Journal, model_sha256
from fl.nn import moments, settled
from fl.provenance import code_hash, conditions
from fl.rounds import REPLY_SECONDS, Rounds
from fl.seeds import stream, torch_stream
from strategies.fedavg import FedAvg
from strategies.fedprox import FedProx

app = ServerApp()

Watch = Callable[[dict], None]
"""Is called with every line of `rounds.jsonl`, also with those of rounds that were resumed."""

_NODES_SECONDS = 120.0  # how long to wait for the federation to be complete


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
        FederationError: the nodes are not those that the experiment needs.
    """
    training.use_one_thread()
    journal.check(knobs, resume)
    if result := journal.result():
        for line in journal.rounds():
            watch(line)
        return result
    network = flat.network(as_shared(knobs), torch_stream(knobs.seed, "init"))
    surroundings = {**started_by, **conditions(), **_data_conditions(knobs)}
    surroundings["trained_on"] = flat.device_name(network)
    surroundings["auto"] = _settled(knobs)
    nodes = identify(grid, knobs.partition.clients)
    pooled = moments(network.module) if knobs.state.bn == "pooled" else {}
    rounds = Rounds(grid, knobs, journal, network, _strategy(knobs, nodes, pooled), nodes)
    with journal.alone():
        journal.check(knobs, resume)  # again: another process may have been here meanwhile
        journal.begin(knobs, surroundings)
        return _play(rounds, journal, watch)


def rehearse(knobs: Experiment) -> None:
    """Do all of an experiment that can fail for its knobs, without a client and without a file.

    Raises:
        ConfigError: the network, its device, the data or the deal are impossible.
    """
    flat.network(knobs, torch_stream(knobs.seed, "init"))
    deal(knobs)


def _play(rounds: Rounds, journal: Journal, watch: Watch) -> dict:
    """Play the rounds that are missing, and write the result."""
    checkpoint = journal.checkpoint()
    if checkpoint is None:
        checkpoint = rounds.begin()
    else:
        rounds.restore(checkpoint)
    for line in journal.rounds():
        watch(line)
    while checkpoint.round < rounds.knobs.rounds:
        checkpoint, line = rounds.play(checkpoint)
        watch(line)
    result = _result(journal.rounds(), checkpoint.model)
    journal.finish(result, checkpoint.model)
    return result


class FederationError(RuntimeError):
    """The nodes that answered are not the federation that the experiment needs."""


def identify(grid: Grid, clients: int) -> dict[int, int]:
    """Return partition id -> node id, once all clients are there.

    Raises:
        FederationError: too few or too many nodes, two nodes with one share, or a node that runs
            other code than this server.
    """
    deadline = time.monotonic() + _NODES_SECONDS
    ids = sorted(grid.get_node_ids())
    while len(ids) < clients and time.monotonic() < deadline:
        time.sleep(1)
        ids = sorted(grid.get_node_ids())
    if len(ids) != clients:
        raise FederationError(
            f"{len(ids)} nodes for partition.clients={clients}; make them equal, for example with "
            f"`flwr run --federation-config num-supernodes={clients}`"
        )
    questions = [Message(RecordDict(), node, wire.WHO_ARE_YOU) for node in ids]
    nodes: dict[int, int] = {}
    for reply in grid.send_and_receive(questions, timeout=REPLY_SECONDS):
        node = reply.metadata.src_node_id
        if reply.has_error():
            raise FederationError(f"node {node} does not answer: {reply.error.reason}")
        partition, code = wire.read_identity(reply.content)
        if code != code_hash():
            raise FederationError(
                f"node {node} runs other code ({code[:8]}) than the server ({code_hash()[:8]}); "
                "start Flower's local SuperLink from an empty folder (docs/flower.md)"
            )
        nodes[partition] = node
    if nodes.keys() != set(range(clients)):
        raise FederationError(f"nodes hold the shares {sorted(nodes)}, expected 0 to {clients - 1}")
    return nodes


def as_shared(knobs: Experiment) -> Experiment:
    """Return the experiment whose network is what clients share: without what stays with them."""
    without = {"state.bn": "drop", "state.fixed-from": 0}
    return knobs.replace(without) if knobs.state.bn == "local" else knobs


def _strategy(knobs: Experiment, nodes: Mapping[int, int], pooled: Mapping[str, str]) -> FedAvg:
    """Return the strategy that the knobs name; it pools these variances with their means."""
    average = {
        "sample": knobs.sampling.clients,
        "nodes": nodes,
        "available": lambda number: available(knobs, number),
        "stream": lambda number: stream(knobs.seed, "sampling", "round", number),
        "weight_key": wire.WEIGHT,
        "arrays_key": wire.ARRAYS,
        "config_key": wire.CONFIG,
        "metrics_key": wire.METRICS,
        "moments": pooled,
    }
    match knobs.strategy.kind:
        case "fedavg":
            return FedAvg(**average)
        case "fedprox":
            return FedProx(mu=knobs.strategy.mu, mu_key=wire.MU, **average)
        case unknown:
            assert_never(unknown)


def _settled(knobs: Experiment) -> dict[str, object]:
    """Return what became of the knobs that were left to the recipe and the skeleton."""
    given = knobs.to_flat()
    return {key: value for key, value in settled(knobs).to_flat().items() if given[key] != value}


def _data_conditions(knobs: Experiment) -> dict[str, object]:
    """Return the fingerprints of the data and of the deal, and the accuracy of guessing.

    Raises:
        ConfigError: the data can't be dealt like that.
    """
    dataset = load(knobs.data.name)
    parts = deal(knobs)
    labels = dataset.test.labels
    return {
        "data_sha256": dataset.fingerprint,
        "deal_sha256": fingerprint({f"{i:06}": part.numpy() for i, part in enumerate(parts)}),
        "chance": float(labels.bincount().max()) / len(labels),
    }


def _result(lines: list[dict], model: Mapping[str, np.ndarray]) -> dict:
    """Sum a run up."""
    chosen_by = (
        "test_accuracy" if lines[0]["validation_accuracy"] is None else "validation_accuracy"
    )
    best = max(lines, key=lambda line: line[chosen_by])
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
        "best_accuracy": best["test_accuracy"],
        "best_round": best["round"],
        "best_chosen_by": chosen_by,
        "personal_accuracy_held_out": lines[-1]["personal_accuracy_held_out"],
        "model_sha256": model_sha256(model),
        "refused": sum(len(line["refused"]) for line in lines),
        "simulated_seconds": _simulated(lines),
        "images_per_second": total["images"] / max(total["train_seconds"], 1e-9),
        **total,
    }


def _simulated(lines: list[dict]) -> float | None:
    """Return the simulated seconds of all rounds; None without a simulated clock."""
    rounds = [line["simulated_seconds"] for line in lines if line["round"]]
    return None if None in rounds else sum(rounds)
