"""The server's memory while it folds replies: a sum in float64 and the reply in hand, however many.

`FEDNF_FULL=1` folds 1,000 replies of 11 million parameters, which takes minutes; otherwise 20.
"""

import json
import os
import subprocess
import sys

import pytest

# A run of one round on a grid whose clients send the network back, each in memory of its own. The
# kernel's record of the most memory begins anew when the first client is asked.
PROGRAM = """
import ctypes, json, sys
from pathlib import Path

from flwr.app import Array, ArrayRecord, Message, MessageType

from fl.client import task
from fl.config import Experiment
from fl.messages import records
from fl.server.app import serve
from fl.server.journal import Journal
from fl.server.watching.callback import Callback
from fl.simulation import InlineGrid

folder, clients = Path(sys.argv[1]), int(sys.argv[2])
seen = {"asked": 0}


def memory(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(name))) * 1024


def app(message, context):
    if message.metadata.message_type != MessageType.TRAIN:
        return task.answer([message], [context])[0]
    network = message.content[records.ARRAYS]
    if not seen["asked"]:
        seen["model"] = records.size(network)
        ctypes.CDLL(None).malloc_trim(0)  # what was freed before is not the round's
        Path("/proc/self/clear_refs").write_text("5")
        seen["before"] = memory("VmRSS")
    seen["asked"] += 1
    partition = context.node_config["partition-id"]
    figures = {name: 1 for name in records.COUNTS} | {name: 0.0 for name in records.MEASURES}
    figures |= {"batch-size": 4, "held-out": 0, **RIGHT}  # as of a client that holds one image
    content = records.train_reply({}, partition, 1, figures)
    content[records.ARRAYS] = ArrayRecord({
        name: Array(a.dtype, a.shape, a.stype, bytes(memoryview(a.data)))
        for name, a in network.items()
    })
    seen["most"] = memory("VmHWM")
    return Message(content, reply_to=message)


RIGHT = {name: 0 for name in records.RIGHT}
knobs = Experiment.from_flat({
    "network.kind": "ffnn", "network.depth": 3, "network.width": 2900, "recipe": "none",
    "partition.kind": "iid", "partition.clients": clients, "sampling.clients": clients,
    "partition.min-size": 1, "rounds": 1, "engine": "sequential",
})
class Watching(Callback):
    def round_done(self, line):
        seen["whole"] = memory("VmHWM")


grid = InlineGrid(knobs, app=app)
result = serve(grid, knobs, Journal(folder), started_by={}, callbacks=[Watching()])
lines = Journal(folder).rounds()
seen["same"] = lines[0]["test_loss"] == lines[1]["test_loss"]
print(json.dumps({**seen, "replied": lines[1]["replied"], "refused": lines[1]["refused"][:1]}))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's /proc")
def test_folding_replies_takes_two_models_besides_the_one_in_hand(tmp_path):
    clients = 1000 if os.environ.get("FEDNF_FULL") else 20
    words = [sys.executable, "-c", PROGRAM, str(tmp_path / "run"), str(clients)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    out = subprocess.check_output(words, text=True, env=environment)
    seen = json.loads(out.splitlines()[-1])
    assert seen["replied"] == clients, seen
    assert seen["same"]  # the mean of equal networks is that network
    assert seen["model"] > 4 * 10.5e6
    models = (seen["most"] - seen["before"]) / seen["model"]
    whole = (seen["whole"] - seen["before"]) / seen["model"]
    sys.stdout.write(f"with evaluation and commit: {whole:.2f} models\n")
    assert whole < 5  # while sums become means, not all of both are there
    sys.stdout.write(f"{clients} replies: {models:.2f} models, of which 1 is the one in hand\n")
    assert models - 1 < 2.1  # the sum: 8 bytes a value, of which the model has 4
