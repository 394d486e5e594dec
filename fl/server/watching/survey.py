"""How the final network serves each client: all of them score it, those that never trained too."""

import logging
from collections.abc import Iterable, Mapping

from flwr.app import ConfigRecord, Message, RecordDict

from fl.data import deal, load
from fl.messages import records, scores
from fl.messages.extras import over_clients
from fl.messages.local import give_initial
from fl.messages.scores import Score
from fl.reproducibility.errors import as_told
from fl.server.journal import Arrays
from fl.server.nodes import Nodes
from fl.server.rounds import Setting
from fl.tasks import Metric, objective

_log = logging.getLogger(__name__)


def survey(setting: Setting, nodes: Nodes, model: Arrays, number: int, trained: set[int]) -> dict:
    """Let all clients that are there score a network, and return what that comes to.

    Args:
        setting: of the run.
        nodes: who can be asked.
        model: the network.
        number: of the round that it is of.
        trained: the clients of which a reply was ever used.

    Returns:
        For the result, with m for the primary metric's name: ``trained_clients``, how many of those
        that trained have a score, and ``trained_m_mean``, ``_worst_tenth`` and ``_spread`` over
        them, as `fl.messages.extras.over_clients`; likewise ``unseen_...`` of those that never did.
        ``domains_m`` has the same of those that trained for each domain whose clients hold examples
        of no other, where the data say so. ``client_scores`` has a row a client, and ``unscored``
        who gave no score, and why.
    """
    metric = objective(setting.knobs).metrics[0]
    found, unscored = _asked(setting, nodes, model, number, metric)
    domains = _domains(setting)
    groups = {"trained": trained, "unseen": {score.partition for score in found} - trained}
    told: dict = {}
    for group, members in groups.items():
        own = [score.value for score in found if score.partition in members]
        told |= _named(group, own, metric)
    served: dict[str, list[float | None]] = {}
    for score in found:
        if score.partition in trained and (domain := domains.get(score.partition)) is not None:
            served.setdefault(domain, []).append(score.value)
    told[f"domains_{metric.name}"] = {
        domain: {"clients": _count(values), **over_clients(values, metric)}
        for domain, values in sorted(served.items())
    }
    rows = [
        {
            "partition": score.partition,
            "held_out": score.held_out,
            metric.name: score.value,
            "trained": score.partition in trained,
            **({"domain": domains.get(score.partition)} if domains else {}),
        }
        for score in found
    ]
    return {**told, "client_scores": rows, "unscored": unscored}


def _named(group: str, values: list[float | None], metric: Metric) -> dict:
    figures = over_clients(values, metric).items()
    named = {f"{group}_{metric.name}_{figure}": value for figure, value in figures}
    return {f"{group}_clients": _count(values), **named}


def _count(values: Iterable[float | None]) -> int:
    return sum(value is not None for value in values)


def _asked(
    setting: Setting, nodes: Nodes, model: Arrays, number: int, metric: Metric
) -> tuple[list[Score], list[dict]]:
    """Ask all clients; return their scores in the order of partitions, and who gave none."""
    shared = {name: array for name, array in model.items() if name not in setting.kept}
    config = ConfigRecord({records.ROUND: number})
    content = RecordDict({records.ARRAYS: records.pack_arrays(shared), records.CONFIG: config})
    asked = {
        partition: Message(content, node, records.SCORE)
        for partition, node in sorted(nodes.nodes.items())
    }
    if setting.kept and setting.knobs.run.start_from:
        give_initial(list(asked.values()), {name: model[name] for name in setting.kept})
    seconds = setting.knobs.devices.reply
    replies = nodes.grid.send_and_receive(list(asked.values()), timeout=seconds)
    heard = {reply.metadata.reply_to_message_id: reply for reply in replies}
    found, unscored = list[Score](), list[dict]()
    for partition, message in asked.items():
        try:
            reply = heard.get(message.metadata.message_id)
            if reply is None:
                raise ValueError(f"no reply within {seconds:.0f} s")
            found.append(scores.read(reply, nodes.members[partition], metric))
        except ValueError as error:
            unscored.append({"partition": partition, "reason": as_told(str(error))})
            _log.warning("client %d gives no score: %s", partition, error)
    return found, unscored


def _domains(setting: Setting) -> Mapping[int, str]:
    """Return the domain of each client that holds examples of one only, where the data say so."""
    if not setting.dataset.domains:
        return {}
    data, found = load(setting.knobs), dict[int, str]()
    assert data.train.domains is not None
    for partition, places in enumerate(deal(setting.knobs)):
        own = data.train.domains[places].unique()
        if len(own) == 1:
            found[partition] = data.domains[int(own)]
    return found
