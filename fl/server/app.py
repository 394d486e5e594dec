"""The server: what a run needs before its first round, and what it leaves after the last."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import platformdirs
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fl.config import DEVICES, Experiment
from fl.config.parsing import ConfigError
from fl.data import Dataset, deal, load
from fl.messages import client_state
from fl.nn import moments, resolve_auto
from fl.reproducibility.determinism import prepare_process
from fl.reproducibility.files import fingerprint
from fl.reproducibility.provenance import conditions
from fl.reproducibility.seeds import stream, torch_stream
from fl.server.journal import Checkpoint, Found, Journal
from fl.server.nodes import Nodes
from fl.server.opening import opened
from fl.server.result import summarize
from fl.server.rounds import RoundCallback, Rounds, Runtime, Setting
from fl.training.parameters import FlatNetwork, build_network, device_name
from strategies import STRATEGIES
from strategies.fedavg import Sampler
from strategies.private import Noise, Private
from strategies.strategy import Strategy

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the experiment of Flower's run config, as `flwr run` starts it."""
    knobs = Experiment.from_flat(context.run_config)
    default = platformdirs.user_data_path("fednf") / "runs" / str(context.run_id)
    journal = Journal(Path(knobs.run.dir) if knobs.run.dir else default)
    started_by = {"command": "flwr run"}
    serve(Runtime(grid), knobs, journal, resume=knobs.run.resume, started_by=started_by)


def serve(
    runtime: Runtime,
    knobs: Experiment,
    journal: Journal,
    *,
    resume: bool = False,
    watch: RoundCallback = lambda line: None,
    started_by: Mapping[str, object],
) -> dict:
    """Run an experiment on a grid, from the start or from its checkpoint, and return its result.

    Args:
        runtime: where the clients are.
        knobs: what to run.
        journal: where to write it.
        resume: whether an unfinished run in that folder may be gone on with.
        watch: called after every round.
        started_by: how to repeat it, for `experiment.json`.

    Raises:
        ConfigError: the knobs, the data or the folder don't allow it; nothing was written.
        FederationError: too few devices can be asked.
        RunFailed: a simulation has a bug, or no reply could be used in any round.
    """
    prepare_process()
    with opened(journal, knobs, resume) as found:
        if found.result:
            return replay(journal, found, watch)
        prepared = prepare(knobs)
        return play(OpenRun(prepared, journal, found, started_by), runtime, watch)


@dataclass(frozen=True)
class Prepared:
    """What an experiment needs that can fail for its knobs, without a client and without a file."""

    knobs: Experiment
    dataset: Dataset | None
    """None where devices bring all data."""
    network: FlatNetwork | None
    """With initial weights; None where devices say what it is for."""


@dataclass(frozen=True)
class OpenRun:
    """A run whose folder is open."""

    prepared: Prepared
    journal: Journal
    found: Found
    """What the folder held when it was opened."""
    started_by: Mapping[str, object]
    """How to repeat it."""


def prepare(knobs: Experiment) -> Prepared:
    """Load an experiment's data, deal them, and build its network.

    Raises:
        ConfigError: the network, its device, the data or the deal are impossible.
    """
    if knobs.data.name == DEVICES:
        return Prepared(knobs, None, None)
    dataset = load(knobs.data.name)
    deal(knobs)
    return Prepared(knobs, dataset, _network(knobs, dataset))


def replay(journal: Journal, found: Found, watch: RoundCallback) -> dict:
    """Tell of the rounds of a finished run, and return its result."""
    assert found.result is not None
    for line in journal.rounds():
        watch(line)
    return found.result


def play(run: OpenRun, runtime: Runtime, watch: RoundCallback) -> dict:
    """Play the rounds that are missing, write the result, and return it; see `serve`."""
    knobs, journal, found = run.prepared.knobs, run.journal, run.found
    dataset = run.prepared.dataset
    nodes = Nodes(runtime.grid, knobs, dataset.form if dataset else None)
    nodes.gather()
    if dataset is None:
        assert nodes.form is not None
        dataset = Dataset.nothing(DEVICES, nodes.form)
    network = run.prepared.network or _network(knobs, dataset)
    told = {**run.started_by, **conditions(), **_data_conditions(knobs, dataset), **_brought(nodes)}
    told |= {"trained_on": device_name(network), "auto": _resolved(knobs)}
    strategy = _strategy(knobs, nodes, network)
    rounds = Rounds(Setting(knobs, network, dataset, strategy), nodes, journal, runtime, watch)
    if found.checkpoint:
        _restore(rounds.setting, found.checkpoint, journal, runtime)
    journal.begin(knobs, told, found)
    for line in journal.rounds():
        watch(line)
    model = rounds.play(found.checkpoint)
    result = summarize(journal.rounds(), model)
    journal.finish(result, model)
    return result


def as_shared(knobs: Experiment) -> Experiment:
    """Return the experiment whose network is what clients share: without what stays with them."""
    without = {"state.bn": "drop", "state.fixed-from": 0}
    return knobs.replace(without) if knobs.state.bn == "local" else knobs


def _network(knobs: Experiment, dataset: Dataset) -> FlatNetwork:
    """Build the network that clients share, with its initial weights."""
    return build_network(as_shared(knobs), torch_stream(knobs.seed, "init"), dataset.form)


def _strategy(knobs: Experiment, nodes: Nodes, network: FlatNetwork) -> Strategy:
    """Return the strategy that the knobs name, as private as they want it.

    Raises:
        ConfigError: the noise could be repeated by devices that hold images of their own.
    """
    sampler = Sampler(
        clients=knobs.sampling.clients,
        nodes=nodes.nodes,
        available=nodes.available,
        stream=partial(stream, knobs.seed, "sampling", "round"),
    )
    kind, privacy = STRATEGIES[knobs.strategy.kind], knobs.privacy
    own = {name: getattr(knobs.strategy, name) for name in kind.options}
    pooled = moments(network.module) if knobs.state.bn == "pooled" else {}
    average = kind(sampler, moments=pooled, uniform=privacy.kind != "none", **own)
    if privacy.kind == "none":
        return average
    if privacy.noise_from == "seed" and privacy.noise and not nodes.simulated:
        raise ConfigError(
            "privacy.noise-from=seed: all devices know the seed and could take the noise off; set "
            "privacy.noise-from=system"
        )

    def noise(number: int) -> np.random.Generator:
        if privacy.noise_from == "system":
            return np.random.default_rng()
        return stream(knobs.seed, "privacy", "round", number)

    covered = {part.name for part in network.segments}
    return Private(average, Noise(privacy.noise, privacy.clip, covered, noise), privacy.kind)


def _restore(setting: Setting, checkpoint: Checkpoint, journal: Journal, runtime: Runtime) -> None:
    """Give clients the states that they had when the checkpoint was written.

    Raises:
        ConfigError: the run needs such states, and its runtime has kept none.
    """
    written = checkpoint.clients
    local = setting.knobs.state.bn == "local" and setting.network.norms
    if local and journal.clients() and not written:
        raise ConfigError(
            "state.bn=local: this checkpoint has no clients' statistics, since Flower keeps "
            "them and forgets them with the run; start anew in another folder"
        )
    saved = {partition: journal.client_state(partition, n) for partition, n in written.items()}
    runtime.restore_states({p: client_state.unpack_state(*state) for p, state in saved.items()})


def _resolved(knobs: Experiment) -> dict[str, object]:
    """Return what became of the knobs that were left to the recipe and the skeleton."""
    given, chosen = knobs.to_flat(), resolve_auto(knobs).to_flat()
    return {key: value for key, value in chosen.items() if given[key] != value}


def _data_conditions(knobs: Experiment, dataset: Dataset) -> dict[str, object]:
    """Return the fingerprints of the data and of the deal, and the accuracy of guessing."""
    if knobs.data.name == DEVICES:
        return dict.fromkeys(("data_sha256", "deal_sha256", "chance"))
    parts, labels = deal(knobs), dataset.test.labels
    return {
        "data_sha256": dataset.fingerprint,
        "deal_sha256": fingerprint({f"{i:06}": part.numpy() for i, part in enumerate(parts)}),
        "chance": float(labels.bincount().max()) / len(labels),
    }


def _brought(nodes: Nodes) -> dict[str, object]:
    """Return who has brought images of what form; nothing of a simulation, where nobody has."""
    if nodes.simulated:
        return {}
    keys = ("partition", "source", "images", "held_out", "packages")
    members = [nodes.members[partition] for partition in sorted(nodes.members)]
    return {"devices": [{key: getattr(told, key) for key in keys} for told in members]}
