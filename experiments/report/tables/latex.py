r"""Tables in LaTeX, with booktabs: text is escaped, and small remarks stand below a number."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from experiments.report.tables.sheets import Cell, Sheet

ESCAPES = {
    **{char: f"\\{char}" for char in "{}$&#_%"},
    **{char: f"{{{char}}}" for char in "[]*"},  # which \\ before them would take for its own
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    '"': "''",
    "`": r"\textasciigrave{}",
    **{char: f"${char}$" for char in "<>|"},
    "–": r"\textendash{}",
    "—": r"\textemdash{}",
    "−": "$-$",
    "…": r"\dots{}",
    "“": "``",
    "”": "''",
    "‘": "`",
    "’": "'",
    **{
        char: f"$\\{name}$"
        for char, name in {
            "×": "times", "±": "pm", "→": "rightarrow", "≥": "geq", "≤": "leq", "≈": "approx",
            "·": "cdot", "∞": "infty", "α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta",
            "ε": "varepsilon", "λ": "lambda", "μ": "mu", "σ": "sigma", "τ": "tau", "χ": "chi",
            "Δ": "Delta", "Σ": "Sigma", "∘": "circ", "√": "surd",
        }.items()
    },
}  # fmt: skip
"""Characters that LaTeX does not take as they are, or that its fonts lack."""
_LONG = 36
"""Letters from which on a column breaks its lines."""


def escape(text: str) -> str:
    """Return a text as LaTeX sets it, on one line."""
    return " ".join(text.translate(str.maketrans(ESCAPES)).split()).replace("--", "-{}-")


def table(sheet: "Sheet") -> str:
    r"""Return a table as a `tabular`, to be read by `\input`."""
    rows = [row for body in sheet.bodies for row in body]
    columns = len(sheet.titles)
    lines = [
        f"% {sheet.name}, by fednf report; needs \\usepackage{{booktabs}}",
        f"\\begin{{tabular}}{{{''.join(_column(rows, n) for n in range(columns))}}}",
        "\\toprule",
        *_head(sheet),
    ]
    for body in sheet.bodies:
        lines.append("\\midrule")
        lines += [_part(row[0], columns) if row[0].part else _line(map(_cell, row)) for row in body]
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", ""])


def _column(rows: "list[list[Cell]]", number: int) -> str:
    cells = [row[number] for row in rows if not row[0].part]
    if any(cell.number for cell in cells):
        return "r"
    return "p{5cm}" if any(len(cell.text) > _LONG for cell in cells) else "l"


def _line(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"


def _part(cell: "Cell", columns: int) -> str:
    return _line([f"\\multicolumn{{{columns}}}{{l}}{{\\emph{{{escape(cell.text)}}}}}"])


def _head(sheet: "Sheet") -> list[str]:
    """Return the lines of the head; below a cell that spans rows there is nothing."""
    lines = []
    for row in sheet.heads:
        found, next_column = [], 0
        for column, cell in row:
            found += [""] * (column - next_column)
            next_column = column + cell.across
            place = "c" if cell.across > 1 else "r" if cell.number else "l"
            found.append(f"\\multicolumn{{{cell.across}}}{{{place}}}{{{escape(cell.text)}}}")
        lines.append(_line(found))
    return lines


def _cell(cell: "Cell") -> str:
    """Return a cell; what stands below its text makes it a small table of its own."""
    text = escape(cell.text)
    text = f"\\textbf{{{text}}}" if cell.strong else text
    if not cell.remarks:
        return text
    small = [f"{{\\scriptsize {escape(remark)}}}" for remark in cell.remarks]
    place = "r" if cell.number else "l"
    inner = " \\\\ ".join([text, *small])
    return f"\\begin{{tabular}}[t]{{@{{}}{place}@{{}}}}{inner}\\end{{tabular}}"
