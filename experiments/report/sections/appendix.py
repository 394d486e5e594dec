"""The sections at the page's end: the networks, the cost, and the conditions."""

from collections.abc import Mapping, Sequence

from experiments.report import labels, tables
from experiments.report.markup import Html, element, join
from experiments.report.results import Results, Run
from experiments.report.sections import circumstances
from fl.nn import RECIPES, relevant

Experiments = Sequence[Mapping[str, object]]

_TRANSDUCTIVE = (
    "The shared network is evaluated with the statistics of batches of test images, so what it "
    "says of an image depends on the images beside it; that does not compare with other policies."
)
_POLICIES = {
    "average": "the server averages them across clients with the same weights as the parameters, "
    "the clients' numbers of images.",
    "pooled": "the server averages the means, and pools the variances: how far the clients' means "
    "are apart counts.",
    "recalibrate": "after averaging, the round's clients measure them anew on their training "
    "images, and the server pools what they find.",
    "local": f"they never leave a client. {_TRANSDUCTIVE}",
    "drop": f"there are none. {_TRANSDUCTIVE}",
}
"""What becomes of BatchNorm's statistics, by `state.bn`; docs/design/batchnorm.md has more."""


def contenders(results: Results) -> Html | None:
    """Say what each recipe is, where recipes are known."""
    names = dict.fromkeys(str(run.knobs.get("recipe")) for run in results.runs)
    rows = [
        (element("dt", RECIPES[name].label), element("dd", RECIPES[name].description))
        for name in names
        if name in RECIPES
    ]
    if not rows:
        return None
    intro = (
        "A recipe fills the slots of one and the same network skeleton. A normalizer rescales "
        "what a layer computes; BatchNorm does so with the mean and the variance of the batch, "
        "which are rough estimates where a batch holds a few images of a few classes."
    )
    return element(
        "section",
        element("h2", "The networks"),
        element(
            "details",
            element("summary", "What each of them is"),
            element("p", intro),
            element("dl", [part for row in rows for part in row], class_="terms"),
        ),
        [element("p", note) for note in _batchnorm(results.finished)],
    )


def cost(results: Results) -> Html:
    """Make the section on seconds, bytes and refused replies."""
    refused = tables.refusals(results)
    about = (
        "Means per run. Training is the clients' local training and the averaging, without the "
        "evaluation; runs may have shared the machine with others, so compare seconds with care."
    )
    return element(
        "section",
        element("h2", "What it took"),
        element("p", about),
        tables.cost(results),
        join(element("p", "Replies were refused, and left out of the average, because:"), refused)
        if refused
        else element("p", "No client's reply was refused."),
    )


def privacy(results: Results) -> Html | None:
    """Say what the noise of runs promises, and what that assumes; None where none was asked for."""
    told = [(run.name, p) for run in results.runs for p in (run.result or {}).get("privacy", ())]
    if not told:
        return None
    runs = {
        p["text"]: [name for name, other in told if other["text"] == p["text"]] for _, p in told
    }
    assumed = dict.fromkeys(text for _, promise in told for text in promise["assumes"])
    about = (
        "Differential privacy bounds how much the odds of any conclusion from a model can change "
        "if somebody's data were other data: by a factor of exp(epsilon), but for a probability "
        "of delta. It holds only as far as these sentences are true:"
    )
    return element(
        "section",
        element("h2", "Privacy"),
        [element("p", f"{text} ({', '.join(names)}).") for text, names in runs.items()],
        element("p", about) if assumed else None,
        element("ul", [element("li", text) for text in assumed]) if assumed else None,
    )


def conditions(results: Results) -> Html:
    """Make the section with all that is needed to judge and repeat the runs."""
    knobs = [relevant(run.knobs) for run in results.runs]
    varying = labels.varying(knobs)
    found = [circumstances.of(run) for run in results.runs]
    around = [
        (name, _listed(found, name)) for name in dict.fromkeys(n for one in found for n in one)
    ]
    return element(
        "section",
        element("h2", "Conditions"),
        element("h3", "Knobs that vary"),
        tables.pairs([(key, _listed(knobs, key)) for key in varying]),
        _folded(
            "Knobs that all runs share",
            [(key, _shared(knobs, key)) for key in _keys(knobs) if key not in varying],
        ),
        _folded("Versions, machine and data", around + _data(results)),
        element("h3", "Repeat it"),
        _command(results),
    )


def _folded(title: str, rows: list[tuple[str, str]]) -> Html:
    return element("details", element("summary", title), tables.pairs(rows))


def _keys(experiments: Experiments) -> list[str]:
    return list(dict.fromkeys(key for experiment in experiments for key in experiment))


def _listed(experiments: Experiments, key: str) -> str:
    return ", ".join(_text(value) for value in labels.values(experiments, key))


def _shared(experiments: Experiments, key: str) -> str:
    everywhere = all(key in experiment for experiment in experiments)
    return _listed(experiments, key) + ("" if everywhere else " (where it applies)")


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _data(results: Results) -> list[tuple[str, str]]:
    """Return the source and licence of each data set that is on this machine."""
    found = {data.name: data for run in results.runs if (data := circumstances.data_set(run))}
    return [
        (f"data: {name}", f"{data.source}; licence: {data.licence}")
        for name, data in sorted(found.items())
    ]


def _command(results: Results) -> Html:
    commands = list(dict.fromkeys(c for part in results.parts or (results,) for c in _typed(part)))
    if not commands:
        return element("p", "The command was not recorded; runs.csv has all knobs of each run.")
    again = (
        "On one machine, with the same versions, this gives the same networks byte for byte; "
        "runs.csv has the SHA-256 of each."
    )
    return join(element("pre", element("code", "\n".join(commands))), element("p", again))


def _typed(results: Results) -> list[str]:
    """Return the command of a study, or those of its runs, as far as they are known."""
    if results.command:
        return [results.command]
    return [str(c) for run in results.runs if (c := run.header.get("command"))]


def _policy(run: Run) -> object:
    """Return what becomes of BatchNorm's statistics in a run, as `state.bn` says it."""
    policy = run.knobs.get("state.bn", "average")
    return "local" if run.knobs.get("state.local") == "norm" and policy != "drop" else policy


def _batchnorm(runs: tuple[Run, ...]) -> list[str]:
    """Say what becomes of BatchNorm's statistics, and where it had none to compute."""
    rows = [(run, RECIPES.get(str(run.knobs.get("recipe")))) for run in runs]
    concerned = [run for run, row in rows if row and row.batchnorm]
    if not concerned:
        return []
    policies = labels.values([{"state.bn": _policy(r)} for r in concerned], "state.bn")
    notes = ["BatchNorm also keeps running means and variances for use after training."]
    notes += [f"state.bn={policy}: {_POLICIES[str(policy)]}" for policy in policies]
    notes += [
        f"state.fixed-from={number}: from round {number} on, clients trained by the statistics as "
        "they were then, and nobody moved them."
        for number in labels.values([run.knobs for run in concerned], "state.fixed-from")
        if number
    ]
    single = sum(int(line["single_value_steps"]) for run in concerned for line in run.clients)
    steps = sum(int(line["steps"]) for run in concerned for line in run.clients)
    if single:
        notes.append(
            f"In {single:,} of BatchNorm's {steps:,} training steps a layer saw a single value per "
            "channel, which has no variance; in these steps it used its running statistics, or "
            "where there are none, only its shift was left."
        )
    return notes
