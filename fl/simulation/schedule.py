"""How clients are shared between workers, and between the lanes of one."""

import heapq
from collections.abc import Callable, Sequence


def cost(steps: Sequence[int], lanes: int, of_pass: Callable[[int], int]) -> int:
    """Return what it costs to train clients in lanes, where whoever has most steps begins first.

    Args:
        steps: of each client.
        lanes: a lane whose client is done takes the next one.
        of_pass: what a pass costs in which so many lanes are busy.
    """
    waiting, ends = sorted(steps), list[int]()
    now = found = 0
    while waiting or ends:
        while waiting and len(ends) < lanes:
            heapq.heappush(ends, now + waiting.pop())
        busy, before = len(ends), now
        now = heapq.heappop(ends)
        found += (now - before) * of_pass(busy)
    return found


def longest_first(steps: Sequence[int], hands: int) -> list[list[int]]:
    """Deal clients, by their places: the largest first, each to whoever has least to do."""
    parts: list[list[int]] = [[] for _ in range(hands)]
    loads = [(0, hand) for hand in range(hands)]
    for place in sorted(range(len(steps)), key=lambda place: -steps[place]):
        load, hand = loads[0]
        parts[hand].append(place)
        heapq.heapreplace(loads, (load + steps[place], hand))
    return parts
