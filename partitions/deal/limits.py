"""Refuse impossible partitions, in one line that names the knob to change."""

import math


def check_clients(
    examples: int, clients: int, min_size: int, knob: str = "partition.min-size"
) -> None:
    """Refuse a deal with too few examples for its clients: ``clients * min_size > examples``.

    Args:
        examples: How many examples there are.
        clients: How many clients they are dealt to, at least 1.
        min_size: How many examples every client must get, at least 0.
        knob: What asks for so many.

    Raises:
        ValueError: If a number is out of its range, or the examples do not suffice.
    """
    if clients < 1:
        raise ValueError(f"partition.clients is {clients}: set it to 1 or more")
    if min_size < 0:
        raise ValueError(f"{knob} is {min_size}: set it to 0 or more")
    if examples < 1:
        raise ValueError("there are 0 examples to deal out: choose a data set that has some")
    if min_size and clients > examples:
        raise ValueError(
            f"partition.clients is {clients}, but there are only {examples} examples: "
            f"set it to {examples} or less"
        )
    if clients * min_size > examples:
        raise ValueError(
            f"partition.clients x {knob} is {clients} x {min_size} = "
            f"{clients * min_size}, but there are only {examples} examples: "
            f"set {knob} to {examples // clients} or less, "
            f"or partition.clients to {examples // min_size} or less"
        )


def check_alpha(alpha: float, knob: str = "partition.alpha") -> None:
    """Refuse a concentration that no Dirichlet distribution has: ``0 < alpha < inf`` is needed.

    Args:
        alpha: Concentration, without unit; small is skewed, large is even.
        knob: Where it was set.

    Raises:
        ValueError: If alpha is zero, negative, infinite or not a number.
    """
    if not (math.isfinite(alpha) and alpha > 0):
        raise ValueError(
            f"{knob} is {alpha}: set it to a finite number above 0, "
            "such as 0.1 (skewed) or 100 (nearly even)"
        )
