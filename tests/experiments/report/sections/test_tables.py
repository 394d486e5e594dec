"""Tables as files are what the page shows; and in a browser they sort and filter."""

import csv
import io
import re
import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.report.markup import element, table
from experiments.report.results import read
from experiments.report.tables import latex, sheets
from experiments.report.tables.runs import every_run
from experiments.report.web.document import document

READ = {tex: char for char, tex in latex.ESCAPES.items()} | {"-{}-": "--"}
TOKEN = re.compile("|".join(map(re.escape, sorted(READ, key=len, reverse=True))) + "|.", re.DOTALL)

QUOTES = str.maketrans({"’": "'", "”": "''", '"': "''", "“": "‘‘"})
"""LaTeX sets straight quotes as curly ones, and two single ones as a double one."""


def set_by_latex(text):
    """Return what LaTeX sets of an escaped text; it refuses what has a meaning of its own."""
    found = []
    for token in TOKEN.findall(text):
        assert token in READ or token not in set("\\{}$&#^_%~"), f"{token} is a command"
        found.append(READ.get(token, token))
    return "".join(found)


@given(st.text(st.sampled_from([*map(chr, range(33, 127)), *latex.ESCAPES, " ", "é"])))
def test_what_is_escaped_is_set_as_it_was(text):
    found = set_by_latex(latex.escape(text))
    assert found.translate(QUOTES) == " ".join(text.split()).translate(QUOTES)


def cell(text, *remarks, kind="number", tag="td", **spans):
    small = [element("small", remark) for remark in remarks]
    return element(tag, element("span", text), small, class_=kind, **spans)


HEADS = [
    [
        cell("network", tag="th", kind="", rowspan="2"),
        cell("all & each", tag="th", kind="group", colspan="2"),
    ],
    [cell("a_b", tag="th"), cell("n", tag="th")],
]
BODIES = [
    [
        [cell("iid", tag="th", kind="part", colspan="3")],
        [cell("[x]", tag="th", kind=""), cell("−1.5%", "−2 to 1", "best"), cell("1,204")],
    ],
    [
        [cell("α = 0.1", tag="th", kind="part", colspan="3")],
        [cell("*y", tag="th", kind=""), cell("–"), cell("7")],
    ],
]


@pytest.fixture
def sheet():
    (found,) = sheets.read(document("t", table(HEADS, BODIES, "mine"), ""))
    return found


def test_a_table_is_read_from_the_page(sheet):
    assert (sheet.name, sheet.titles) == ("mine", ["network", "all & each: a_b", "all & each: n"])
    assert [[len(row) for row in body] for body in sheet.bodies] == [[1, 3], [1, 3]]
    assert list(csv.reader(io.StringIO(sheets.as_csv(sheet)))) == [
        ["part", "network", "all & each: a_b", "all & each: n"],
        ["iid", "[x]", "-1.5%; -2 to 1; best", "1,204"],
        ["α = 0.1", "*y", "–", "7"],
    ]


def test_every_row_of_a_tabular_has_all_columns(sheet):
    text = latex.table(sheet)
    inner = r"\\begin\{tabular\}\[t\].*?\\end\{tabular\}"
    lines = re.sub(inner, "", text).splitlines()
    (columns,) = re.findall(r"\\begin\{tabular\}\{(\w+)\}", text)
    assert columns == "lrr"
    rows = [line for line in lines if line.endswith(r"\\")]
    assert len(rows) == 2 + 4
    for row in rows:
        wide = sum(int(n) - 1 for n in re.findall(r"\\multicolumn\{(\d+)\}", row))
        assert row.replace(r"\&", "").count("&") + wide + 1 == len(columns)
    assert text.count("\\midrule") == 2
    for place in ("\\toprule", "\\bottomrule", r"all \& each", r"a\_b", "{[}x{]}", "{*}y"):
        assert place in text


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("pdflatex"), reason="needs pdflatex")
def test_latex_takes_it(sheet, tmp_path):
    every = "".join(latex.ESCAPES) + "é -- ?` !` ''"
    text = latex.table(sheet) + f"\n\n{latex.escape(every)}\n"
    (tmp_path / "t.tex").write_text(
        "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\n"
        f"{text}\\end{{document}}\n",
        encoding="utf-8",
    )
    done = subprocess.run(
        ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "t.tex"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Missing character" not in (tmp_path / "t.log").read_text(errors="replace")


def test_tables_that_a_page_no_longer_has_go(tmp_path):
    page = document("t", table(HEADS, BODIES, "mine"), "")
    (tmp_path / "notes.csv").write_text("mine own")
    sheets.write(page.replace("table-mine", "table-old"), tmp_path)
    sheets.write(page, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.csv", "mine.tex", "notes.csv"]


def test_a_run_s_link_stays_true_where_all_is_moved(study, tmp_path):
    out = tmp_path / "reports" / "one"
    out.mkdir(parents=True)
    links = re.findall(r'href="([^"]+)"', every_run(read(study), out))
    assert len(links) == 18
    moved = tmp_path.with_name(f"{tmp_path.name}-moved")
    tmp_path.rename(moved)
    try:
        assert all((moved / "reports" / "one" / link / "rounds.jsonl").is_file() for link in links)
    finally:
        moved.rename(tmp_path)


PLAY = """
const texts = (at) => [...document.querySelectorAll("tbody tr:not([hidden])")]
  .filter((row) => row.cells.length > 1).map((row) => row.cells[at].firstChild.textContent);
const log = [];
const button = document.querySelectorAll("thead button")[1];
for (let time = 0; time < 3; time += 1) {
  button.click();
  log.push([button.parentElement.getAttribute("aria-sort"), ...texts(1)].join(" "));
}
const field = document.querySelector("input");
field.value = "even ROW-1";
field.dispatchEvent(new Event("input"));
log.push(texts(0).join(" "), document.querySelector("output").value);
log.push(document.querySelectorAll("tbody tr:not([hidden]) .part").length);
document.body.append(Object.assign(document.createElement("pre"), {
  id: "log", textContent: log.join("|"),
}));
"""


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("chromium"), reason="needs chromium")
def test_a_browser_sorts_numbers_as_numbers_and_filters(tmp_path):
    values = ("9.5%", "−12%", "–", "1,000%", "+3%")
    head = [[cell(text, tag="th", kind="", scope="col") for text in ("name", "value")]]
    bodies = [
        [[cell(part, tag="th", kind="part", colspan="2")]]
        + [[cell(f"row-{n}", tag="th", kind=""), cell(v, "77")] for n, v in enumerate(values)]
        for part in ("even", "skewed")
    ]
    page = document("t", table(head, bodies, "mine"), "")
    (tmp_path / "p.html").write_text(page.replace("</script>", f"{PLAY}</script>"))
    done = subprocess.run(
        ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom",
         f"--user-data-dir={tmp_path / 'profile'}", (tmp_path / "p.html").as_uri()],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    (log,) = re.findall(r'<pre id="log">(.*?)</pre>', done.stdout)
    up, down = "−12% +3% 9.5% 1,000% –", "1,000% 9.5% +3% −12% –"
    assert log.split("|") == [
        f"ascending {up} {up}",
        f"descending {down} {down}",
        f" {' '.join(values)} {' '.join(values)}",
        "row-1",
        "1 of 10",
        "1",
    ]
