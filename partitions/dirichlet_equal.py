"""Label skew alone: every client draws its own mix of classes, and all are of equal size."""

import numpy as np
from jaxtyping import Float64, Int64, Integer

from partitions.deal.hand_out import by_class, hand_out, shuffle
from partitions.deal.limits import check_alpha, check_clients


def dirichlet_equal(
    labels: Integer[np.ndarray, " examples"],
    clients: int,
    alpha: float,
    rng: np.random.Generator,
) -> list[Int64[np.ndarray, " _"]]:
    """Give every client equally many examples, of classes drawn from ``q ~ Dir(alpha * prior)``.

    The prior is the share of each class in ``labels``. A client has ``n // clients`` examples,
    the first ``n % clients`` clients one more. Examples are drawn without replacement: once a
    class has run out, q is renormalized over the others. As alpha goes to 0 a client has one
    class (more only where one ran out); as it grows, classes are drawn from the prior.

    The scale differs from `dirichlet`: alpha is divided among the classes. With ten even classes,
    alpha 1 gives mixes about as skewed as alpha 0.1 does in `dirichlet`.

    The last clients get what is left, which differs from the mixes that they drew. So even with
    the largest alpha the partition is a little more skewed than `iid`. Clients are served in
    random order, so that a client's number does not tell whether it was among the last.

    Args:
        labels: The class of each example.
        clients: How many clients, between 1 and the number of examples.
        alpha: Concentration, above 0, without unit.
        rng: Where mixes, examples and orders are drawn from.

    Returns:
        One shuffled array of indices into ``labels`` a client; every example exactly once.

    Raises:
        ValueError: If alpha is not a finite number above 0, or clients is below 1 or above the
            number of examples.

    Source: Hsu et al., arXiv 1909.06335, "Synthetic Non-Identical Client Data"; drawing what
    goes beyond a class at once, and the random order of clients, are ours.
    """
    check_clients(len(labels), clients, min_size=1)
    check_alpha(alpha)
    small, more = divmod(len(labels), clients)
    sizes = small + (np.arange(clients) < more).astype(np.int64)
    return deal_mixes(labels, sizes, alpha, rng)


def deal_mixes(
    labels: Integer[np.ndarray, " examples"],
    sizes: Int64[np.ndarray, " clients"],
    alpha: float,
    rng: np.random.Generator,
) -> list[Int64[np.ndarray, " _"]]:
    """Deal as `dirichlet_equal` does, to clients of given sizes.

    Args:
        labels: The class of each example, at least one.
        sizes: How many examples each client gets; they sum to the examples.
        alpha: Concentration, above 0, without unit.
        rng: Where mixes, examples and orders are drawn from.

    Returns:
        One shuffled array of indices into ``labels`` a client; every example exactly once.
    """
    left = np.unique(labels, return_counts=True)[1].astype(np.int64)
    # Below 1e-200 nothing changes but that the next lines would divide by zero.
    concentration = max(alpha, 1e-200) * (left / len(labels))
    mixes = log_mixes(concentration, len(sizes), rng)
    counts = np.empty((len(sizes), len(left)), dtype=np.int64)
    for client in rng.permutation(len(sizes)):
        counts[client] = take(int(sizes[client]), mixes[client], left, rng)
        left -= counts[client]
    parts = hand_out(by_class(labels, rng), counts.T)
    shuffle(parts, rng)
    return parts


def log_mixes(
    concentration: Float64[np.ndarray, " classes"], clients: int, rng: np.random.Generator
) -> Float64[np.ndarray, "clients classes"]:
    """Draw ``log q + constant`` with q ~ Dir(concentration) for each client.

    A Dirichlet draw is a row of Gamma(a) draws over their sum, and Gamma(a) equals
    Gamma(a + 1) * U^(1/a) in law. The logarithm of the latter stays finite where the draws
    themselves are zero in floating point, so that any subset of classes can be renormalized.

    Args:
        concentration: The parameters of the Dirichlet distribution, all above 0.
        clients: How many mixes.
        rng: Where they are drawn from.

    Returns:
        Logarithms of the mixes, each row up to a constant of its own.
    """
    shape = (clients, len(concentration))
    gamma = rng.standard_gamma(concentration + 1, shape)
    return np.log(gamma) - rng.standard_exponential(shape) / concentration


def take(
    size: int,
    log_mix: Float64[np.ndarray, " classes"],
    left: Int64[np.ndarray, " classes"],
    rng: np.random.Generator,
) -> Int64[np.ndarray, " classes"]:
    """Draw the classes of one client's examples, no more of a class than is left of it.

    The counts have the law of ``size`` single draws with probabilities proportional to
    ``exp(log_mix)`` over the classes that have not run out. They are drawn together: what goes
    beyond a class's rest is drawn again over the others, so each round but the last exhausts a
    class and there are at most as many rounds as classes.

    Args:
        size: How many examples, at most ``left.sum()``.
        log_mix: Logarithm of the client's mix of classes, up to a constant.
        left: How many examples of each class there are to take.
        rng: Where the classes are drawn from.

    Returns:
        How many examples of each class are taken; they sum to ``size``.
    """
    taken = np.zeros_like(left)
    while missing := size - taken.sum():
        available = np.flatnonzero(taken < left)
        weights = np.exp(log_mix[available] - log_mix[available].max())
        taken[available] += rng.multinomial(missing, weights / weights.sum())
        taken = np.minimum(taken, left)
    return taken
