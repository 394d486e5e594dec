"""Natural clients: examples are grouped by domain, such as a writer, a device or a hospital."""

import numpy as np
from jaxtyping import Int64, Integer

from partitions.deal.hand_out import gather, shuffle
from partitions.dirichlet import dirichlet


def natural(
    labels: Integer[np.ndarray, " examples"],
    domains: Integer[np.ndarray, " examples"],
    clients: int,
    alpha: float,
    min_size: int,
    rng: np.random.Generator,
) -> list[Int64[np.ndarray, " _"]]:
    """Make one client of each domain, or of some domains, or several clients of each.

    With D domains that have examples, in ascending order:

    - ``clients == D``: client i holds domain i.
    - ``clients < D``: the domains of a random subset, in ascending order. *Examples of the other
      domains are dealt to nobody.*
    - ``clients == m * D``: domain d is dealt to the m clients ``d * m`` to ``d * m + m - 1`` by
      `dirichlet` with ``alpha`` and ``min_size``, which matter in this case only.

    Args:
        labels: The class of each example.
        domains: The domain of each example.
        clients: How many clients, at least 1; above D a multiple of it.
        alpha: Concentration of the deal within a domain, above 0, without unit.
        min_size: The fewest examples a client may have where it shares its domain.
        rng: Where the subset, the deals and orders are drawn from.

    Returns:
        One shuffled array of indices into ``labels`` a client; no example twice, and every one
        unless there are fewer clients than domains.

    Raises:
        ValueError: If ``clients`` is below 1 or above D but no multiple of it, or a domain is
            too small for its clients.

    Source: Caldas et al., arXiv 1812.01097 (LEAF: a client is a writer, a user). Derived: what
    becomes of more or fewer clients than domains.
    """
    owners = np.unique(domains, return_inverse=True)[1]
    count = int(owners.max(initial=-1)) + 1
    _check(clients, count)
    held = gather(np.arange(len(domains)), owners, count)
    if clients <= count:
        chosen = np.arange(count)
        if clients < count:
            chosen = np.sort(rng.choice(count, clients, replace=False))
        parts = [held[domain] for domain in chosen]
        shuffle(parts, rng)
        return parts
    each = clients // count
    _check_sizes([len(places) for places in held], each, min_size)
    return [
        places[part]
        for places in held
        for part in dirichlet(labels[places], each, alpha, min_size, rng)
    ]


def _check(clients: int, domains: int) -> None:
    if domains < 1:
        raise ValueError("there are 0 examples to deal out: choose a data set that has some")
    if clients < 1:
        raise ValueError(f"partition.clients is {clients}: set it to 1 or more")
    if clients > domains and clients % domains:
        raise ValueError(
            f"partition.clients is {clients}, but there are {domains} domains: set it to "
            f"{domains} or less, or to a multiple such as {clients // domains * domains}"
        )


def _check_sizes(sizes: list[int], each: int, min_size: int) -> None:
    smallest = min(sizes)
    if each * min_size > smallest:
        raise ValueError(
            f"partition.clients asks for {each} clients a domain of at least partition.min-size "
            f"= {min_size} examples, but domain {sizes.index(smallest)} has only {smallest}: "
            f"set partition.min-size to {smallest // each} or less, or partition.clients to "
            f"{max(smallest // min_size, 1) * len(sizes)} or less"
        )
