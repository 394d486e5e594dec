"""Which function deals the examples: one of `partitions`, or a user's own."""

import inspect
from collections.abc import Mapping

import numpy as np
from jaxtyping import Int64, Integer

import partitions
from fl.config import Partition
from fl.config.parsing import ConfigError, Value
from partitions.deal.check import check_deal

Parts = list[Int64[np.ndarray, " _"]]
"""For every client, in order, the places of its examples."""
Labels = Integer[np.ndarray, " examples"]


def by_kind(
    labels: Labels, domains: np.ndarray | None, knobs: Partition, rng: np.random.Generator
) -> Parts:
    """Deal by one of our own rules.

    Raises:
        ConfigError: that is impossible with so many examples, clients or domains.
    """
    try:
        return _by_kind(labels, domains, knobs, rng)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _by_kind(
    labels: Labels, domains: np.ndarray | None, knobs: Partition, rng: np.random.Generator
) -> Parts:
    clients = knobs.clients
    match knobs.kind:
        case "iid" | "feature-noise":
            return partitions.iid(labels, clients, rng)
        case "dirichlet":
            return partitions.dirichlet(labels, clients, knobs.alpha, knobs.min_size, rng)
        case "dirichlet-equal":
            return partitions.dirichlet_equal(labels, clients, knobs.alpha, rng)
        case "dirichlet-balanced":
            return partitions.dirichlet_balanced(labels, clients, knobs.alpha, knobs.min_size, rng)
        case "mixture":
            return partitions.mixture(
                labels, clients, knobs.alpha, knobs.quantity_alpha, knobs.min_size, rng
            )
        case "quantity":
            return partitions.quantity(labels, clients, knobs.alpha, knobs.min_size, rng)
        case "shards":
            return partitions.shards(labels, clients, knobs.shards, rng)
        case "label-count":
            return partitions.label_count(labels, clients, knobs.labels, rng)
        case "natural":
            if domains is None:
                raise ValueError(
                    "partition.kind is natural, but the data set does not say whose each image "
                    "is: choose one that does, or another partition.kind"
                )
            return partitions.natural(labels, domains, clients, knobs.alpha, knobs.min_size, rng)
        case unknown:
            raise ValueError(f"partition.kind={unknown} is not known here")


def by_function(
    rule: object,
    labels: Labels,
    domains: np.ndarray | None,
    knobs: Partition,
    rng: np.random.Generator,
) -> Parts:
    """Deal by a user's function ``(labels, clients, rng, **options)``, and check what it returns.

    A function with a parameter `domains` is also given the domain of each example. Whatever it
    raises is left as it is, with its traceback.

    Args:
        rule: the function.
        labels: the class of each example.
        domains: the domain of each example; None where the data set does not say.
        knobs: how many clients there are, whether one may be empty, and the function's options.
        rng: the only randomness, if the deal is to be repeatable.

    Raises:
        ConfigError: it is no function, it needs domains that there are none of, or what it
            returned is no deal.
    """
    where = f"partition.kind={knobs.kind}"
    if not callable(rule):
        raise ConfigError(f"{where} is {type(rule).__name__}, expected a function of labels")
    given: dict[str, Value | np.ndarray | None] = {**knobs.given}
    if (asked := _parameters(rule).get("domains")) is not None:
        if domains is None and asked.default is asked.empty:
            raise ConfigError(
                f"{where} takes domains, but the data set does not say whose each example is: "
                "choose one that does, or another partition.kind"
            )
        given["domains"] = domains
    parts = rule(labels, knobs.clients, rng, **given)
    try:
        return check_deal(parts, len(labels), knobs.clients, knobs.min_size)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from None


def _parameters(rule: object) -> Mapping[str, inspect.Parameter]:
    """Return the parameters of a function; none where it does not tell."""
    try:
        return inspect.signature(rule).parameters  # pyrefly: ignore
    except (TypeError, ValueError):
        return {}
