"""Which node may claim which partition: the one whose key was registered for it.

Flower shows a server app the ids of nodes and never their keys. But a SuperLink that checks keys
gives an id with the registration of a key, takes what a node sends only if it is signed by the key
of that node's id, and takes a reply only from the node that was asked. So where keys are checked,
an id stands for a key. ``register.sh`` of a deployment keeps each id that a key was given.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from fl.config.parsing import ConfigError


def file_of(folder: Path, partition: int) -> Path:
    """Return the file in which Flower's answer to the registration of a device's key is kept."""
    return folder / f"device-{partition}.json"


def node_of(file: Path) -> int | None:
    """Return the id that a device's key was given; None where the key is not registered.

    Raises:
        ConfigError: the file is there, and holds no id.
    """
    try:
        return int(json.loads(file.read_text(encoding="utf-8"))["node-id"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError):
        raise ConfigError(
            f"{file} should hold what flwr supernode register said; remove the device, and "
            "register it again"
        ) from None


def bound(folder: Path, partitions: int) -> Mapping[int, int]:
    """Return the nodes whose keys are registered -> the partition that each may claim.

    Raises:
        ConfigError: as `node_of`.
    """
    found = ((node_of(file_of(folder, number)), number) for number in range(partitions))
    return {node: number for node, number in found if node is not None}
