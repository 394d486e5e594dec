"""Run contenders in turns, and summarize their repetitions."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import mean, median

from experiments.bench.contenders.workload import draws
from experiments.bench.jobs import flops_per_image, network
from experiments.bench.repetition import Failed, Repetition, repeat
from fl.config import Experiment
from fl.data import deal

Repeat = Callable[[str, bool], Repetition]
"""Runs a contender once: (name, whether to watch its memory) -> repetition; raises `Failed`."""


@dataclass(frozen=True)
class Spread:
    """A figure over repetitions."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Return the spread of at least one value."""
        return cls(median(values), min(values), max(values))


@dataclass(frozen=True)
class Summary:
    """The figures of a contender over its repetitions."""

    images_per_second: Spread
    seconds_per_round: Spread
    ratio: Spread | None
    """Its rate divided by the other contender's in the same turn; None where that one failed."""
    startup: Spread
    whole: Spread
    """Seconds of the whole command, with its start-up and its end."""
    whole_ratio: Spread | None
    """The other contender's seconds of the whole command by its own."""
    accuracy: float
    """Of the last network of the first counted repetition, on the test images."""
    peak_bytes: int | None
    losses: tuple[float, ...]
    """Training losses of the first counted repetition."""


def in_turns(
    contenders: Sequence[str], repetitions: int, repeat: Repeat, watch: Callable[[], None]
) -> tuple[dict[str, list[Repetition]], dict[str, str]]:
    """Run contenders on a job in turns, A B C A B C, so that a disturbance hits all of them.

    The first turn fills caches and watches the memory; its times are not counted. A
    contender that fails is left out of later turns.

    Args:
        contenders: by name.
        repetitions: turns that count.
        repeat: does the job once.
        watch: called after every repetition.

    Returns:
        By contender all repetitions, the first turn's in front, and why some failed.
    """
    done: dict[str, list[Repetition]] = {name: [] for name in contenders}
    failed: dict[str, str] = {}
    for turn in range(repetitions + 1):
        for name in contenders:
            if name not in failed:
                try:
                    done[name].append(repeat(name, turn == 0))
                except Failed as error:
                    failed[name] = str(error)
            watch()
    return {name: found for name, found in done.items() if name not in failed}, failed


def summaries(done: Mapping[str, Sequence[Repetition]], against: str) -> dict[str, Summary]:
    """Summarize repetitions. The first turn counts for the memory only."""
    counted = {name: found[1:] for name, found in done.items()}
    anchor = counted.get(against)
    return {
        name: Summary(
            images_per_second=Spread.of([r.images_per_second for r in found]),
            seconds_per_round=Spread.of([r.seconds_per_round for r in found]),
            ratio=_ratios(found, anchor, lambda r: r.images_per_second),
            startup=Spread.of([r.startup for r in found]),
            whole=Spread.of([r.whole for r in found]),
            whole_ratio=_ratios(found, anchor, lambda r: 1 / r.whole),
            accuracy=found[0].accuracies[-1],
            peak_bytes=done[name][0].peak_bytes,
            losses=found[0].losses,
        )
        for name, found in counted.items()
    }


def _ratios(
    mine: Sequence[Repetition],
    theirs: Sequence[Repetition] | None,
    rate: Callable[[Repetition], float],
) -> Spread | None:
    """Return how many times their rate mine is, turn by turn."""
    if not theirs:
        return None
    pairs = zip(mine, theirs, strict=True)
    return Spread.of([rate(one) / rate(other) for one, other in pairs])


def timed(
    job: Experiment,
    contenders: Sequence[str],
    repetitions: int,
    against: str,
    peak: float | None,
    watch: Callable[[], None],
) -> dict:
    """Run contenders on a job in turns, and return all figures, ready for JSON.

    Args:
        job: what to do.
        contenders: who does it.
        repetitions: turns that count.
        against: the contender that ratios are to.
        peak: floating-point operations a second of which shares are told; None: they are not.
        watch: called after every repetition.
    """
    sizes = [len(part) for part in deal(job)]
    images = [sum(sizes[client] for client in drawn) for drawn in draws(job)]
    flops = flops_per_image(job)

    def once(name: str, watch_memory: bool) -> Repetition:
        return repeat(name, job, images, watch_memory=watch_memory)

    done, failed = in_turns(contenders, repetitions, once, watch)
    told = {
        name: {
            **asdict(summary),
            "share_of_peak": peak and summary.images_per_second.median * flops / peak,
            "repetitions": [asdict(repetition) for repetition in done[name]],
        }
        for name, summary in summaries(done, against).items()
    }
    return {
        "batch_size": job.client.batch_size,
        "knobs": job.to_flat(),
        "parameters": sum(p.numel() for p in network(job).parameters()),
        "flops_per_image": flops,
        "images": mean(images),
        "clients": job.sampling.clients,
        "sizes": sorted(sizes),
        "contenders": told,
        "failed": failed,
    }
