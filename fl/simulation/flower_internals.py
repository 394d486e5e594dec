"""Flower's private corners, all of them: what an own grid needs and flwr 1.41 does not export.

Checked with flwr 1.41; ``pyproject.toml`` pins the range, and
``tests/fl/simulation/test_runtime.py`` notices a change. Nothing else in the house imports from ``flwr.supercore``.
"""

from flwr.app import Message
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

SERVER_NODE = 1
"""The id of the server's end; Flower's own grids use it too."""


def act_as_server(run_id: int) -> Run:
    """Let this process make messages, which Flower allows to its own tasks only."""
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = run_id, SERVER_NODE, 0
    return Run.create_empty(run_id)


def number_message(message: Message, number: int) -> None:
    """Give a message the id that a SuperLink would give it; a reply refers to it."""
    message.metadata.__dict__["_message_id"] = str(number)
