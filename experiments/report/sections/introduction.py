"""The head of the page: the question, and what a reader who is new to the field has to know."""

from experiments.report import labels, words
from experiments.report.markup import Html, element, prose
from experiments.report.results import Results, Run
from experiments.report.sections import circumstances
from fl.config.fleet import memory_tiers

_TERMS = {
    "iid": "*iid* (“independent, identically distributed”): every client gets a random share of "
    "all classes.",
    "dirichlet": "*Dirichlet α*: each class is spread over the clients in unequal parts. The "
    "smaller *α*, the more unequal: at 0.1 most clients see few of the classes, at 100 all see "
    "nearly the same.",
    "dirichlet-equal": "*Equal-size Dirichlet α*: all clients hold equally many images, each with "
    "a class mix of its own. The smaller *α*, the fewer classes a client sees.",
    "dirichlet-balanced": "*Balanced Dirichlet α*: as Dirichlet, but a client that has its share "
    "of all images gets nothing of further classes.",
    "mixture": "*Mixture*: clients differ in how many images they hold and in their mixes of "
    "classes.",
    "quantity": "*Quantity α*: clients hold unequal numbers of images with the mix of all. The "
    "smaller *α*, the more unequal.",
    "shards": "*Shards*: images are sorted by class and cut into pieces; a client gets a few of "
    "them, and so few classes.",
    "label-count": "*Label count*: every client owns a fixed number of classes.",
    "feature-noise": "*Feature noise*: every client gets a random share of all classes, and inputs "
    "are noisier from client to client.",
    "natural": "*Natural*: a client is one owner of data: a person, a device, a vendor.",
    "fedavg": "*FedAvg*: the new shared network is the mean of the clients' networks, weighted by "
    "their numbers of images.",
    "fedprox": "*FedProx μ*: as FedAvg, but while a client trains it is pulled back toward the "
    "shared network, with strength *μ*.",
}


def heading(results: Results) -> Html:
    """Make the question and, below it, what was done to answer it."""
    sizes = sorted({size for run in results.runs for size in _batch_sizes(run)})
    size = " or ".join(map(str, sizes))
    small = f"*micro-batches* of {size}, as small devices must"
    batches = small if max(sizes) <= 8 else f"batches of {size}"
    setting = (
        "*Federated learning* trains one shared network on images that stay with their owners, "
        "the *clients*. In each *round* the server sends the network to "
        f"{_either(results, 'sampling.clients')} of {_either(results, 'partition.clients')} "
        f"clients; each trains it on its own images in {batches}, and the server averages what "
        f"comes back. Here that is done for {_either(results, 'rounds')} rounds."
    )
    headers = [run.header for run in results.runs]
    return element(
        "header",
        element("p", f"fednf · {results.name}", class_="overline"),
        element("h1", results.question),
        element("p", _behind(results), class_="lede"),
        element(
            "details",
            element("summary", "What was done, and what the words mean"),
            element("p", prose(setting)),
            element("p", prose(_measured(results))),
            element("ul", _terms(results)),
        ),
        [element("p", f"D{line[1:]}.") for line in circumstances.data_read(headers)],
        element("p", f"Published: {results.published}") if results.published else None,
    )


def _measured(results: Results) -> str:
    """Say what the metric is, what guessing gives, and what a seed is."""
    images = circumstances.test_images(results.runs)
    names = labels.values([run.knobs for run in results.runs], "data.name")
    sets = " or ".join(map(labels.data_set, names))
    tested = f"{images:,} images of {sets}" if images else f"images of {sets}"
    measure = results.measure
    chances = sorted({run.chance for run in results.runs if run.chance is not None})
    chance = " or ".join(measure.value(value, 0) for value in chances)
    what = (
        f"*Accuracy* is the share of {tested} kept apart from all clients that the shared network "
        f"names correctly; *guessing* the most frequent class gives {chance}."
    )
    if not measure.is_accuracy:
        what = (
            f"*{measure.heading}* of the shared network is taken on {tested} kept apart from all "
        )
        what += f"clients; {measure.direction} is better"
        what += f". *Guessing*, the best constant answer, gives {chance}." if chance else "."
    return (
        f"{what} A *seed* fixes "
        "everything random: the network's first weights, who holds which images, and who is asked "
        "in which round."
    )


def _behind(results: Results) -> str:
    """Say how many runs and seeds the page is about."""
    seeds = len({run.block for run in results.runs})
    runs = words.count(len(results.finished), "finished run")
    stand = "stands" if len(results.finished) == 1 else "stand"
    return f"{runs} with {words.count(seeds, 'seed')} {stand} behind this page."


def _terms(results: Results) -> list[Html]:
    """Explain the partitions and strategies that occur, a line each."""
    knobs = [run.knobs for run in results.runs]
    kinds = labels.values(knobs, "partition.kind") + labels.values(knobs, "strategy.kind")
    return [element("li", prose(text)) for kind, text in _TERMS.items() if kind in kinds]


def _batch_sizes(run: Run) -> list[int]:
    """Return the batch sizes of a run's devices: one, or one for each tier of memory."""
    tiers = memory_tiers(str(run.knobs.get("fleet.memory", "none")))
    return [size for size, _ in tiers] or [int(run.knobs["client.batch-size"])]


def _either(results: Results, key: str) -> str:
    """Write the values of a knob: ``4``, or ``1 or 4``."""
    return " or ".join(str(v) for v in labels.values([run.knobs for run in results.runs], key))
