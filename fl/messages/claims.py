"""What a node says of itself, compared with what the server knows without it."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

from fl.config import DEVICES, Experiment
from fl.data import counts, load
from fl.messages import bound_keys
from fl.messages.node_info import NodeInfo


class Claims:
    """Says which nodes claim what is not theirs, or can't be.

    Args:
        knobs: the experiment, whose deal says what was dealt.
    """

    def __init__(self, knobs: Experiment) -> None:
        self.knobs = knobs
        self._bound: Mapping[int, int] = {}

    def look(self) -> None:
        """Read which key is for which partition: devices may have been registered since."""
        if folder := self.knobs.devices.keys:
            self._bound = bound_keys.bound(Path(folder), self.knobs.partition.clients)

    def partition(self, node: int, claimed: int) -> int | None:
        """Return the partition that a node's key is for; where keys are not bound, the claimed."""
        return self._bound.get(node) if self.knobs.devices.keys else claimed

    def of_another(self, node: int, claimed: int) -> str | None:
        """Say that a node claims a partition that its key is not for; None where it may."""
        own = self.partition(node, claimed)
        if own == claimed:
            return None
        key = "is for none" if own is None else f"is for partition {own}"
        return f"it says that it is partition {claimed}, and its key {key}"

    def untrue(self, told: NodeInfo) -> str | None:
        """Say why a device can't hold what it says; None where it can.

        Args:
            told: its partition is one of the experiment's.
        """
        devices = self.knobs.data.name == DEVICES
        if told.source not in ("dealt", "shard", "own"):
            return f"its images are from {told.source!r}, expected dealt, shard or own"
        if devices and told.source == "dealt":
            return f"it says that its images were dealt, and data.name={DEVICES} deals none"
        if not devices and told.source != "own":
            return self._not_as_dealt(told)
        found, most = max(told.images, told.held_out), self.knobs.devices.most_images
        if found > most:
            return f"it says that it holds {found} images, more than devices.most-images={most}"
        return None

    def _not_as_dealt(self, told: NodeInfo) -> str | None:
        if complaint := of_other_data(told.dealt_from, self._data, self.knobs.data.name):
            return complaint
        images, held_out = self._dealt[told.partition]
        if (told.images, told.held_out) == (images, held_out):
            return None
        return (
            f"it says that it holds {told.images} images and {told.held_out} held-out ones, and "
            f"partition {told.partition} was dealt {images} and {held_out}"
        )

    @cached_property
    def _data(self) -> str:
        return load(self.knobs).fingerprint

    @cached_property
    def _dealt(self) -> Sequence[tuple[int, int]]:
        return counts(self.knobs)


def of_other_data(dealt_from: str, here: str, name: str) -> str | None:
    """Say that a shard was dealt from other data than the server has; None where it was not.

    Names and paths don't matter, since data are the same wherever they are.

    Args:
        dealt_from: `Dataset.fingerprint` of what was dealt; empty where nobody wrote it down.
        here: that of the server's data.
        name: the server's `data.name`.
    """
    if dealt_from in ("", here):
        return None
    return (
        f"its shard was dealt from data with the SHA-256 {dealt_from[:12]}, and data.name={name} "
        f"has {here[:12]}: give the server the data that were dealt, or deal anew"
    )
