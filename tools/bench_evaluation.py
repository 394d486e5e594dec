"""How fast networks are evaluated by one core; docs/measurements/engines.md has figures.

``python -m tools.bench_evaluation none batchnorm zc-swish`` evaluates the default network of each
recipe on the test images, untrained, in plain PyTorch and as workers with operators of ours do.
Turn after turn, and the first turn does not count.
"""

import argparse
import statistics
import sys
import time
from contextlib import nullcontext

from fl.config import Experiment
from fl.data import load
from fl.reproducibility.determinism import prepare_process
from fl.reproducibility.seeds import torch_stream
from fl.server.watching.evaluation import splits
from fl.tasks import objective
from fl.training.loop import Evaluation
from fl.training.parameters import build_network
from fl.vectorized.operators import Operators, unavailable_reason

WAYS = {"plain PyTorch": nullcontext, "ours": Operators}


def evaluation(recipe: str, data: str) -> Evaluation:
    """Return the evaluation of a recipe's untrained network on the test images."""
    knobs = Experiment.from_flat({"data.name": data, "recipe": recipe, "device": "cpu"})
    dataset, generator = load(knobs), torch_stream(knobs.seeds["init"], "init")
    network = build_network(knobs, generator, dataset.form)
    model = {name: tensor.numpy() for name, tensor in network.state().items()}
    test = {"test": splits(knobs, dataset)["test"]}
    return Evaluation(network, dataset, objective(knobs), test, model)


def rate(of: Evaluation, way: str) -> float:
    """Return images a second."""
    begun = time.perf_counter()
    with WAYS[way]():
        told = of.figures(of.parts())
    assert told["test"]["loss"]
    return len(of.splits["test"]) / (time.perf_counter() - begun)


def main() -> None:
    """Print each recipe's rates, as medians with the least and the most."""
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("recipes", nargs="+")
    words.add_argument("--data", default="cifar10")
    words.add_argument("--turns", type=int, default=5)
    asked = words.parse_args()
    prepare_process()
    if reason := unavailable_reason():
        words.error(reason)
    todo = {recipe: evaluation(recipe, asked.data) for recipe in asked.recipes}
    found: dict[tuple[str, str], list[float]] = {(r, way): [] for r in todo for way in WAYS}
    for turn in range(asked.turns + 1):
        for recipe, way in found:
            told = rate(todo[recipe], way)
            if turn:
                found[recipe, way].append(told)
    for (recipe, way), rates in found.items():
        spread = f"{statistics.median(rates):,.0f} ({min(rates):,.0f} to {max(rates):,.0f})"
        sys.stdout.write(f"{recipe}, {way}: {spread} images/s\n")


if __name__ == "__main__":
    main()
