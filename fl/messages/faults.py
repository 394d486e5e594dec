"""Faults by schedule, as the server sees them: replies that come twice, and what is told of all."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from flwr.app import Message

from fl.config import Experiment
from fl.fleet import Work, fault
from fl.messages import records

FAULTY = "faulty"
"""The key of a round's line under which there are its faulty clients; only where it has some."""


def doubled(
    replies: Iterable[Message],
    requests: Sequence[Message],
    knobs: Experiment,
    nodes: Mapping[int, int],
) -> Iterator[Message]:
    """Yield replies, and those of clients whose fault is `duplicate` twice.

    Args:
        replies: as they come.
        requests: of one round, at least one.
        knobs: the experiment.
        nodes: partition id -> node id.
    """
    number = records.read_round(requests[0].content)
    twice = {node for client, node in nodes.items() if fault(knobs, client, number)}
    for reply in replies:
        yield reply
        if reply.metadata.src_node_id in twice:
            yield reply


def told(partitions: Iterable[int], works: Iterable[Work]) -> dict[str, object]:
    """Return what a round's line says of its faulty clients; nothing where none is faulty.

    Args:
        partitions: the clients that were asked.
        works: of each, by the schedule.
    """
    pairs = zip(partitions, works, strict=True)
    found = [{"partition": p, "fault": work.fault} for p, work in pairs if work.fault]
    return {FAULTY: found} if found else {}


def mark(accounts: Iterable[dict], line: Mapping) -> None:
    """Say in the accounts of faulty clients what their fault was, as the round's line does."""
    kinds = {one["partition"]: one["fault"] for one in line.get(FAULTY, ())}
    for account in accounts:
        if account["partition"] in kinds:
            account["fault"] = kinds[account["partition"]]
