"""A server that trains nobody: it asks every device who it is, and writes down what they answer.

It goes to devices with the code of a run, so what it finds is what a run would find.
"""

import json
import logging
import time
from pathlib import Path

from flwr.app import Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp

from fl.messages import node_info, records, run_config
from fl.reproducibility.files import write_whole
from fl.reproducibility.provenance import code_hash, packages
from fl.server.nodes import ANSWER_SECONDS

FILE = "ping.json"

app = ServerApp()
_log = logging.getLogger(__name__)


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Ask all that are connected, and write `ping.json` into `run.dir`."""
    knobs = run_config.experiment(context.run_config)
    here = {"code": code_hash(), "packages": packages()}
    said = {"server": here, "nodes": ask_all(grid)}
    write_whole(Path(knobs.run.dir) / FILE, json.dumps(said, indent=1))
    _log.info("%d nodes", len(said["nodes"]))


def ask_all(grid: Grid) -> dict[str, dict]:
    """Return what every node says of itself, or why it does not, by the node's id.

    `clock_off` is by how many seconds at least its clock is wrong: what can't be explained by the
    time that its answer took.
    """
    questions = [Message(RecordDict(), node, records.WHO_ARE_YOU) for node in grid.get_node_ids()]
    begun = time.time()
    said = {str(q.metadata.dst_node_id): {"problem": "no answer"} for q in questions}
    for reply in grid.send_and_receive(questions, timeout=ANSWER_SECONDS):
        said[str(reply.metadata.src_node_id)] = _account(reply, begun, time.time())
    return said


def _account(reply: Message, begun: float, ended: float) -> dict:
    try:
        told = node_info.read(reply)
    except ValueError as error:
        return {"problem": str(error)}
    off = min(told.clock - begun, 0) or max(told.clock - ended, 0)
    return {
        "partition": told.partition,
        "code": told.code,
        "images": told.images,
        "held_out": told.held_out,
        "shape": told.form.shape,
        "classes": told.form.classes,
        "source": told.source,
        "dealt_from": told.dealt_from,
        "clock_off": off,
        "packages": told.packages,
    }
