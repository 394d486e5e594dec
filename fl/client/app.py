"""The client's Flower app: a thin face of `fl.client.task`, where its work is done."""

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from fl.client import task

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Answer a request for one round of local training."""
    return task.answer([message], [context])[0]


@app.query("who_are_you")
def who_are_you(message: Message, context: Context) -> Message:
    """Say which share of the data this node holds, and which code it runs."""
    return task.answer([message], [context])[0]


@app.query("recalibrate")
def recalibrate(message: Message, context: Context) -> Message:
    """Answer a request for BatchNorm's statistics (`state.bn=recalibrate`)."""
    return task.answer([message], [context])[0]


@app.query("score")
def score(message: Message, context: Context) -> Message:
    """Answer a request to score the final network (`evaluation.clients`)."""
    return task.answer([message], [context])[0]
