"""The control of permuted labels once more, of NF with three other permutations.

``fednf study docs/studies/answer/permuted/again.py --out runs/answer-permuted-again``, from the
repository's root. It was asked for after NF had been 1.1 points from guessing with the first one.
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


STUDY = fl.Study(
    name="answer-permuted-again",
    question="How far from guessing is a network by the permutation that it learns?",
    experiments=fl.grid(
        FULL.base.replace(
            {
                "data.name": "docs/studies/answer/permuted/again.py:dataset",
                "data.options.draw": 1,
                "seed": 1401,
                **compared(FULL.base.rounds)["nf", "even"],
            }
        ),
        fl.each("data.options.draw", (1, 2, 3)),
    ),
)
