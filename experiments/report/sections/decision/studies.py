"""In a report of several studies or folders: what each study asked, and which runs are whose."""

from experiments.report.markup import Html, element, prose, table
from experiments.report.results import Results, Run
from experiments.report.sections.decision import brief
from experiments.report.verdicts import wording


def asked(results: Results) -> list[Html]:
    """Tell each study that declared its comparisons: what it asked, and what its own runs say.

    Its declaration is of its runs. What is compared over all folders nobody declared.
    """
    told = []
    for part in results.parts:
        if part.contrasts:
            told.append(element("h3", f"{part.name}: {part.question}"))
            if lines := [element("li", prose(line)) for line in brief.lines(part)]:
                told.append(element("ul", lines))
            elif few := wording.too_few(part):
                told.append(element("p", few))
            told.append(element("p", wording.declared(part)))
    return [*told, element("h3", "All runs together")] if told else []


def origins(results: Results) -> Html | None:
    """Make the table of the folders and the studies that runs are from; None of a single folder."""
    found: dict[tuple[str, str], list[Run]] = {}
    questions = {}
    for part in results.parts or (results,):
        questions[part.name] = part.question if part.command else "–"
        for run in part.runs:
            found.setdefault((run.folder, part.name), []).append(run)
    if len({folder for folder, _ in found}) < 2:
        return None
    head = [element("th", text, scope="col") for text in ("folder", "study", "what it asked")]
    head += [element("th", t, scope="col", class_="number") for t in ("runs", "finished")]
    rows = [
        [
            element("th", folder, scope="row"),
            element("td", name),
            element("td", questions[name], class_="sentence"),
            element("td", len(runs), class_="number"),
            element("td", sum(run.result is not None for run in runs), class_="number"),
        ]
        for (folder, name), runs in found.items()
    ]
    about = (
        "Their runs are one table. A run that several folders have is told once, in one of them, "
        "and counts in each study that asked for it. What a study declared is judged on its runs."
    )
    return element(
        "section",
        element("h2", "Where the runs are from"),
        element("p", about),
        table([head], [rows], "folders"),
    )
