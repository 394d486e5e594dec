import numpy as np
import pytest

from partitions import natural

LABELS = np.arange(1000) % 7
DOMAINS = np.sort(np.arange(1000) * 31 % 97 % 10)


def held(clients, alpha=1.0, min_size=0, seed=1):
    """The domain of each client."""
    parts = natural(LABELS, DOMAINS, clients, alpha, min_size, np.random.default_rng(seed))
    owners = [np.unique(DOMAINS[part]).tolist() for part in parts]
    assert all(len(domains) == 1 for domains in owners)
    return [domain for [domain] in owners], parts


def test_one_client_a_domain_in_their_order():
    domains, parts = held(10)
    assert domains == list(range(10))
    for domain, part in enumerate(parts):
        places = np.flatnonzero(np.equal(DOMAINS, domain))
        assert sorted(part.tolist()) == places.tolist()
        assert part.tolist() != places.tolist()


def test_fewer_clients_hold_a_random_subset_whole():
    subsets = [tuple(held(4, seed=seed)[0]) for seed in range(200)]
    assert all(list(subset) == sorted(set(subset)) for subset in subsets)
    times = np.bincount(np.concatenate(subsets), minlength=10)
    assert (np.abs(times - 80) < 4 * 7).all()  # 200 draws of 4 in 10: 80 +- 6.9
    domains, parts = held(4)
    assert sum(len(part) for part in parts) == np.isin(DOMAINS, domains).sum()


def test_several_clients_share_a_domain_by_dirichlet():
    domains, parts = held(30, alpha=0.3, min_size=5)
    assert domains == np.repeat(np.arange(10), 3).tolist()
    assert min(len(part) for part in parts) >= 5
    assert sorted(np.concatenate(parts).tolist()) == list(range(1000))


def test_a_small_alpha_gives_each_class_of_a_domain_one_owner():
    _, parts = held(20, alpha=1e-9)
    for one, other in zip(parts[::2], parts[1::2], strict=True):
        assert not set(LABELS[one].tolist()) & set(LABELS[other].tolist())


def test_domains_without_examples_are_no_clients():
    parts = natural(LABELS, DOMAINS * 5, 10, 1.0, 0, np.random.default_rng(1))
    assert len(parts) == 10


@pytest.mark.parametrize(
    ("clients", "min_size", "message"),
    [
        (0, 0, r"^partition\.clients is 0: set it to 1 or more$"),
        (
            25,
            0,
            r"^partition\.clients is 25, but there are 10 domains: set it to 10 or less, or to a "
            r"multiple such as 20$",
        ),
        (
            40,
            50,
            r"^partition\.clients asks for 4 clients a domain of at least partition\.min-size = "
            r"50 examples, but domain 8 has only 92: set partition\.min-size to 23 or less, or "
            r"partition\.clients to 10 or less$",
        ),
    ],
)
def test_the_impossible_is_refused(clients, min_size, message):
    with pytest.raises(ValueError, match=message):
        held(clients, min_size=min_size)


def test_no_examples_are_refused():
    with pytest.raises(ValueError, match="0 examples"):
        natural(np.arange(0), np.arange(0), 1, 1.0, 0, np.random.default_rng(1))
