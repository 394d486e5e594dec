"""A control: with training labels that say nothing, networks have to score what guessing does.

``fednf study docs/studies/answer/permuted.py --out runs/answer-permuted``, from the repository's
root, takes the contenders of the primary block on even clients.
"""

import fl
from experiments.studies.answer.conditions import FULL
from experiments.studies.answer.primary import RATES, compared
from fl.data import load


def dataset() -> fl.Dataset:
    """Return CIFAR-10 with its training labels permuted; test labels stay as they are."""
    known = load("cifar10")
    labels = fl.stream(0, "permuted").permutation(known.train.labels.numpy())
    test = known.test.images, known.test.labels
    return fl.Dataset((known.train.images, labels), test, known.classes, name="permuted labels")


ROWS = compared(FULL.base.rounds)
STUDY = fl.Study(
    name="answer-permuted",
    question="What do networks score that learn labels which say nothing?",
    experiments=fl.grid(
        FULL.base.replace({"data.name": "docs/studies/answer/permuted.py:dataset"}),
        [ROWS[name, "even"] for name in RATES],
        fl.each("seed", (1401,)),
    ),
)
