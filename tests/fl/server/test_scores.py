"""What a client sends of a metric that does not count right answers, and what becomes of it."""

import pytest
import torch
from flwr.app import ArrayRecord, Message, RecordDict

from fl.messages import records
from fl.messages.extras import pooled
from fl.messages.flower_internals import act_as_server
from fl.server.replies import fault
from fl.tasks import Metric
from fl.tasks.auc import AUC
from fl.tasks.regression import MAE, R2

FIGURES = {
    "batch_size": 1, "epochs": 1, "held_out": 3, "steps": 2, "examples": 2, "loss": 0.5,
    "gradient_norm": 1.0, "gradient_norm_p10": 1.0, "gradient_norm_p50": 1.0,
    "gradient_norm_p90": 1.0, "clipped_share": 0.5, "update_norm": 1.0, "single_value_steps": 0,
    "seconds": 0.1,
}  # fmt: skip
LIKE = {"w": torch.zeros(2)}
SUMS = MAE().sums(torch.ones(3, 2), torch.zeros(3, 2))


def reply(change=lambda content: None, scores=(SUMS, SUMS)) -> Message:
    act_as_server(1)
    content = records.train_reply(LIKE, 4, 9, FIGURES, scores=scores)
    change(content)
    return Message(content, reply_to=Message(RecordDict(), 2, "train"))


def told(message: Message) -> str | None:
    return fault(message, records.pack_network(LIKE), partition=4, right=False)


@pytest.mark.parametrize("scores", [(SUMS, SUMS), (None, None), (torch.tensor(2.0),) * 2])
def test_sums_travel_as_they_are(scores):
    message = reply(scores=scores)
    assert told(message) is None
    found = records.scores(message.content)
    for sent, came in zip(scores, found, strict=True):
        wanted = torch.zeros(0, dtype=torch.float64) if sent is None else sent.double()
        assert torch.equal(came, wanted)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c.pop("scores"), "expected arrays and metrics and scores"),
        (lambda c: c["scores"].pop("global"), "scores ['global'] are missing or unknown"),
        (lambda c: c["scores"].update({"more": 1.0}), "scores ['more'] are missing or unknown"),
        (lambda c: c["scores"].update({"global": [1.0]}), "global is 1 values, expected 4 numbers"),
        (lambda c: c["scores"].update({"personal": 1.0}), "personal is 1.0, expected 4 numbers"),
        (lambda c: c["scores"].update({"shape": [-2, 2]}), "shape=[-2, 2], expected at most"),
        (lambda c: c["scores"].update({"shape": [2000, 2000]}), "at most 1,000,000 numbers"),
        (lambda c: c["scores"].update({"shape": 3}), "shape=3, expected at most"),
        (lambda c: c["metrics"].update({"global-correct": 1}), "['global-correct'] are missing"),
        (lambda c: c.update({"scores": ArrayRecord()}), "reply holds"),
    ],
)
def test_odd_sums_are_named_in_one_line(change, words):
    found = told(reply(change))
    assert found is not None
    assert words in found
    assert "\n" not in found


def test_where_right_answers_are_counted_no_sums_are_taken():
    found = fault(reply(), records.pack_network(LIKE), partition=4)
    assert found == "reply holds ['arrays', 'metrics', 'scores'], expected arrays and metrics"


def test_clients_together_are_as_one_and_odd_ones_do_not_count():
    generator = torch.Generator().manual_seed(1)
    outputs, labels = torch.randn(2, 30, 1, generator=generator)
    parts = [slice(0, 4), slice(4, 19), slice(19, 30)]
    for metric in (MAE(), R2()):
        sums = [metric.sums(outputs[part], labels[part]) for part in parts]
        whole = metric.value(metric.sums(outputs, labels))
        odd = [torch.zeros(7), torch.zeros(0)]
        assert pooled(metric, [*odd, *sums]) == pytest.approx(whole)
    assert pooled(MAE(), []) is None
    assert pooled(AUC(), [torch.zeros(2)]) is None


def test_a_value_that_fails_on_what_came_is_unknown():
    class Strict(Metric):
        name = "strict"

        def value(self, sums):
            raise ValueError("these are no sums of mine")

    assert pooled(Strict(), [torch.ones(2)]) is None
