"""The server: what a run needs before its first round, and what it leaves after the last."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import platformdirs
from flwr.app import Context, RecordDict
from flwr.serverapp import Grid, ServerApp

from fl.config import DEVICES, Experiment, components
from fl.config.parsing import ConfigError
from fl.data import Dataset, deal, load
from fl.messages import client_state, run_config
from fl.messages.local import staying
from fl.messages.strategy import strategy_of
from fl.nn import resolve_auto
from fl.nn.foreign.single_values import check_groups
from fl.reproducibility.determinism import prepare_process
from fl.reproducibility.files import fingerprint
from fl.reproducibility.provenance import conditions
from fl.reproducibility.seeds import torch_stream
from fl.server.contents import BEST, MODEL, Checkpoint, Found, readable
from fl.server.journal import Journal, best_of
from fl.server.nodes import Nodes, Runtime
from fl.server.opening import begin, opened
from fl.server.result import summarize
from fl.server.rounds import Rounds, Setting
from fl.server.strategy import flower_of, server_of
from fl.server.watching.callback import Audience, Callback, make
from fl.server.watching.evaluation import splits
from fl.server.watching.survey import survey
from fl.tasks import objective
from fl.training import accounting
from fl.training.checks.estimate import check_batches, check_networks
from fl.training.checks.losses import check_loss
from fl.training.given import start_from
from fl.training.parameters import FlatNetwork, as_shared, build_network, device_name
from fl.training.per_example import check_examples_are_alone
from fl.training.standardized import describe

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the experiment of Flower's run config, as `flwr run` starts it."""
    knobs = run_config.experiment(context.run_config)
    default = platformdirs.user_data_path("fednf") / "runs" / str(context.run_id)
    journal = Journal(Path(knobs.run.dir) if knobs.run.dir else default)
    callbacks = [make(name) for name in components.names(knobs.run.callbacks)]
    resume, started_by = knobs.run.resume, {"command": "flwr run"}
    serve(Runtime(grid), knobs, journal, resume=resume, callbacks=callbacks, started_by=started_by)


def serve(
    runtime: Runtime,
    knobs: Experiment,
    journal: Journal,
    *,
    resume: bool = False,
    callbacks: Sequence[Callback] = (),
    started_by: Mapping[str, object],
) -> dict:
    """Run an experiment on a grid, from the start or from its checkpoint, and return its result.

    Args:
        runtime: where the clients are.
        knobs: what to run.
        journal: where to write it.
        resume: whether an unfinished run in that folder may be gone on with.
        callbacks: are told of the run.
        started_by: how to repeat it, for `experiment.json`.

    Raises:
        ConfigError: the knobs, the data or the folder don't allow it; nothing was written.
        FederationError: too few devices can be asked.
        RunFailed: a simulation or a callback has a bug, or no reply could be used in any round.
    """
    prepare_process()
    with opened(journal, knobs, resume) as found, Audience(callbacks) as audience:
        if found.result:
            return replay(journal, knobs, found, audience)
        prepared = prepare(knobs, found.checkpoint is not None)
        return play(OpenRun(prepared, journal, found, started_by), runtime, audience)


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


def prepare(knobs: Experiment, begun: bool = False) -> Prepared:
    """Load an experiment's data, deal them, and build its network.

    Args:
        knobs: the experiment.
        begun: whether there is a checkpoint, which has the weights to go on with.

    Raises:
        ConfigError: the strategy, the network, its device, the data or the deal are impossible.
    """
    flower_of(knobs)  # which makes one of ours, too, and refuses what does not fit
    if knobs.data.name == DEVICES:
        return Prepared(knobs, None, None)
    dataset = load(knobs)
    parts = deal(knobs)
    network = _network(knobs, dataset, begun)
    splits(knobs, dataset)  # workers that are forked share them
    check_batches(knobs, network, dataset.form, parts)
    return Prepared(knobs, dataset, network)


def replay(journal: Journal, knobs: Experiment, found: Found, audience: Audience) -> dict:
    """Tell of the rounds of a finished run, and return its result."""
    assert found.result is not None
    audience.begin(journal, knobs)
    audience.end(found.result)
    return found.result


def play(run: OpenRun, runtime: Runtime, audience: Audience) -> dict:
    """Play the rounds that are missing, write the result, and return it; see `serve`."""
    knobs, journal, found = run.prepared.knobs, run.journal, run.found
    dataset = run.prepared.dataset
    nodes = Nodes(runtime.grid, knobs, dataset.form if dataset else None)
    nodes.gather()
    if dataset is None:
        assert nodes.form is not None
        dataset = Dataset.nothing(DEVICES, nodes.form)
    network = run.prepared.network or _network(knobs, dataset, found.checkpoint is not None)
    told = {**run.started_by, **conditions(), **_data_conditions(knobs, dataset), **_brought(nodes)}
    told |= {"trained_on": device_name(network), "auto": _resolved(knobs)}
    strategy = server_of(knobs, nodes, network)
    kept = staying(knobs, network.module, dataset.form.classes)
    setting = Setting(knobs, network, dataset, strategy, describe(knobs, dataset), kept)
    rounds = Rounds(setting, nodes, journal, runtime, audience.round)
    if found.checkpoint:
        _restore(rounds.setting, found.checkpoint, journal, runtime)
    else:
        check_networks(knobs, network, journal.folder)
    begin(journal, knobs, told, found)
    audience.begin(journal, knobs)
    model = rounds.play(found.checkpoint)
    result = summarize(journal.rounds(), model, knobs)
    result |= accounting.told(knobs, network, journal.rounds(), journal.clients())
    if knobs.evaluation.clients or knobs.partition.unseen:
        trained = {account["partition"] for account in journal.clients()}
        result |= survey(rounds.setting, nodes, model, result["rounds"], trained)
    journal.keep_network(MODEL, model, result["rounds"], rounds.setting.about)
    journal.finish(result)
    audience.end(result)
    return result


def _network(knobs: Experiment, dataset: Dataset, begun: bool) -> FlatNetwork:
    """Build the network that clients share, with its initial weights or with given ones."""
    network = build_network(
        as_shared(knobs), torch_stream(knobs.seeds["init"], "init"), dataset.form
    )
    if not begun:
        check_groups(network.module, dataset.form.shape, knobs.recipe)
        check_loss(network, dataset, knobs)
    if knobs.privacy.per_example_clip:
        check_examples_are_alone(network, dataset.form)
    staying(knobs, network.module, dataset.form.classes)  # which may be nothing, or all
    shares = knobs.state.bn in ("average", "pooled") and not knobs.state.keeps_statistics
    sent = network.norms and shares
    if knobs.faults.kind == "statistics" and not sent:
        raise ConfigError(
            f"faults.kind=statistics lies about statistics that clients send with their weights: "
            f"take a recipe with BatchNorm, not {knobs.recipe}, and state.bn=average or pooled"
        )
    if knobs.run.start_from and not begun:
        start_from(network, knobs.run)
    return network


def _restore(setting: Setting, checkpoint: Checkpoint, journal: Journal, runtime: Runtime) -> None:
    """Give the strategy and the clients the states that they had when the checkpoint was written.

    Raises:
        ConfigError: the run needs clients' states, and its runtime has kept none; or the strategy's
            is not one of its own.
    """
    written, strategy = checkpoint.clients, strategy_of(setting.knobs)
    statistics = setting.knobs.state.keeps_statistics and setting.network.norms
    local, carried = bool(statistics or setting.kept), setting.knobs.client.carry_momentum
    # Lines of a round that the checkpoint does not cover yet are of a process that was killed.
    trained = any(line["round"] <= checkpoint.round for line in journal.clients())
    if (local or carried or (strategy and strategy.kept)) and trained and not written:
        what = f"strategy.kind={setting.knobs.strategy.kind}"
        what = "client.carry-momentum=true" if carried else what
        what = "state.bn=local" if statistics else what
        what = f"state.local={setting.knobs.state.local}" if setting.kept else what
        raise ConfigError(
            f"{what}: this checkpoint has no clients' states, since Flower keeps "
            "them and forgets them with the run; start anew in another folder"
        )
    try:
        setting.strategy.restore(checkpoint.strategy)
    except ValueError as error:
        raise ConfigError(f"{journal.folder}: {error}; choose another folder") from None
    states = {partition: _state(journal, partition, n) for partition, n in written.items()}
    _check_best(setting.knobs, checkpoint.round, journal)
    runtime.restore_states(states)


def _state(journal: Journal, partition: int, written: int) -> RecordDict:
    """Return what a client remembered after round `written`."""
    kept = journal.client_state(partition, written)
    with readable(journal.state_path(partition, written)):
        return client_state.unpack_state(*kept)


def _check_best(knobs: Experiment, last: int, journal: Journal) -> None:
    """Refuse a folder whose best network is not as it was written; nobody could make it again.

    Raises:
        ConfigError: it is not.
    """
    lines = [line for line in journal.rounds() if line["round"] <= last]
    best = best_of(lines, objective(knobs).primary)[1].get("round", last)
    if journal.run and best < last:  # that of the last round is written again
        there = journal.network(BEST)[1]["round"]
        if there != best:
            raise ConfigError(
                f"{journal.folder / BEST} is damaged: it is of round {there}, and should be of "
                f"round {best}; choose another folder"
            )


def _resolved(knobs: Experiment) -> dict[str, object]:
    """Return what became of the knobs that were left to the recipe and the skeleton."""
    given, chosen = knobs.to_flat(), resolve_auto(knobs).to_flat()
    return {key: value for key, value in chosen.items() if given[key] != value}


def _data_conditions(knobs: Experiment, dataset: Dataset) -> dict[str, object]:
    """Return the metric, the fingerprints of the data and of the deal, and what guessing gives."""
    asked = objective(knobs)
    keys = ("name", "title", "larger", "fraction")
    metric = {"metric": {key: getattr(asked.primary, key) for key in keys}}
    if knobs.data.name == DEVICES:
        return {**metric, **dict.fromkeys(("data_sha256", "deal_sha256", "chance"))}
    parts = deal(knobs)
    return {
        **metric,
        "data": dataset.told(),
        "data_sha256": dataset.fingerprint,
        "deal_sha256": fingerprint({f"{i:06}": part.numpy() for i, part in enumerate(parts)}),
        "chance": asked.guess(dataset.test.labels, len(dataset.classes)),
    }


def _brought(nodes: Nodes) -> dict[str, object]:
    """Return who has brought images of what form; nothing of a simulation, where nobody has."""
    if nodes.simulated:
        return {}
    keys = ("partition", "source", "images", "held_out", "packages")
    members = [nodes.members[partition] for partition in sorted(nodes.members)]
    return {"devices": [{key: getattr(told, key) for key in keys} for told in members]}
