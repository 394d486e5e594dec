"""How clients are shared between workers, and between the lanes of one."""

import heapq
from collections.abc import Sequence


def passes(steps: Sequence[int], lanes: int) -> int:
    """Return how many passes clients need in lanes, where whoever has most steps is begun first."""
    parts = longest_first(steps, lanes)
    return max(sum(steps[place] for place in part) for part in parts)


def longest_first(steps: Sequence[int], hands: int) -> list[list[int]]:
    """Deal clients, by their places: the largest first, each to whoever has least to do."""
    parts: list[list[int]] = [[] for _ in range(hands)]
    loads = [(0, hand) for hand in range(hands)]
    for place in sorted(range(len(steps)), key=lambda place: -steps[place]):
        load, hand = loads[0]
        parts[hand].append(place)
        heapq.heapreplace(loads, (load + steps[place], hand))
    return parts
