"""All private names of Flower that fednf uses.

No other file of `fl`, `strategies`, `partitions` and `experiments` imports a module of Flower
outside its public ones (`flwr.app`, `flwr.clientapp`, `flwr.serverapp`, `flwr.simulation`), or
reads the ``__dict__`` of Flower's objects. `tests/fl/messages/test_flower_internals.py` checks
both, and that these names still do what we expect. They were checked with flwr 1.41 and 1.42;
`pyproject.toml` pins the range.
"""

import sys
from pathlib import Path
from typing import Any

from flwr.app import Message, Metadata, RecordDict
from flwr.common.constant import APP_DIR, ErrorCode
from flwr.supercore.run import Run as Run
from flwr.supercore.task_identity import TaskIdentity
from flwr.supercore.utils import get_flwr_home

SERVER_NODE = 1
"""The node id of the server's end. Flower's own grids use the same number."""
NODE_IS_GONE = (ErrorCode.NODE_UNAVAILABLE, ErrorCode.MESSAGE_UNAVAILABLE)
"""The error codes with which a SuperLink replies for a node that is gone or never fetched its
message."""


def act_as_server(run_id: int) -> Run:
    """Allow this process to create messages.

    Flower refuses to create a message outside a task of its own. This sets the identity of such a
    task for the process, and returns a description of its run.
    """
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = run_id, SERVER_NODE, 0
    return Run.create_empty(run_id)


def number_message(message: Message, number: int) -> None:
    """Set a message's id, as a SuperLink would. A reply names the id of its request."""
    message.metadata.__dict__["_message_id"] = str(number)


def bundle() -> Path | None:
    """Return the folder of the app that Flower runs in this process; None where it runs none."""
    apps = (get_flwr_home() / APP_DIR).resolve()
    folders = (Path(entry).resolve() for entry in sys.path)
    return next((folder for folder in folders if folder.parent == apps), None)


def restore_message(metadata: Metadata, content: RecordDict) -> Message:
    """Return the message that these were taken from. Flower documents no such constructor."""
    return Message(content=content, metadata=metadata)  # pyrefly: ignore


def guard_superlink(guard: Any) -> bool:
    """Put an ASGI middleware in front of all routes of the SuperLink that this process will run.

    Returns:
        Whether Flower has taken it in as its outermost middleware.
    """
    # These imports stay inside, since they load a web server, for which devices have no use.
    from flwr.superlink import extensions, main
    from starlette.middleware import Middleware

    others = extensions.get_middleware()  # outermost first
    extensions.get_middleware = lambda: (Middleware(guard), *others)
    build = getattr(main, "_get_middleware", list)
    return any(layer.cls is guard for layer in build()[:1])


def run_superlink() -> None:
    """Run the command `flower-superlink` in this process."""
    from flwr.superlink.cli import flower_superlink

    flower_superlink()
