"""The control of permuted labels once more, of NF and SaluNet with three other permutations.

``fednf study docs/studies/answer/permuted/again.py --out runs/answer-permuted-again``, from the
repository's root. It was asked for after both had been more than a point from guessing.
"""

import fl
from experiments.studies.answer.conditions import FULL
from experiments.studies.answer.primary import compared
from fl.data import load


def dataset(draw: int) -> fl.Dataset:
    """Return CIFAR-10 with its training labels permuted; test labels stay as they are.

    Args:
        draw: the number of the permutation.
    """
    known = load("cifar10")
    labels = fl.stream(draw, "permuted").permutation(known.train.labels.numpy())
    test = known.test.images, known.test.labels
    return fl.Dataset((known.train.images, labels), test, known.classes, name="permuted labels")


ROWS = compared(FULL.base.rounds)
STUDY = fl.Study(
    name="answer-permuted-again",
    question="How far from guessing is a network by the permutation that it learns?",
    experiments=fl.grid(
        FULL.base.replace(
            {
                "data.name": "docs/studies/answer/permuted/again.py:dataset",
                "data.options.draw": 1,
                "seed": 1401,
            }
        ),
        [ROWS[name, "even"] for name in ("nf", "salunet")],
        fl.each("data.options.draw", (1, 2, 3)),
    ),
)
