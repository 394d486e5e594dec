"use strict";

// What a cell says, without its remarks: a number where it begins with one, null where nothing is.
function valueOf(cell) {
  const copy = cell.cloneNode(true);
  copy.querySelectorAll("small").forEach((remark) => remark.remove());
  const text = copy.textContent.trim();
  const number = /^[+-]?\d[\d.]*(e[+-]?\d+)?/.exec(text.replace(/−/g, "-").replace(/,(?=\d{3})/g, ""));
  return number ? Number.parseFloat(number[0]) : text === "–" ? null : text || null;
}

// Numbers before texts, and what is missing last, upwards as well as downwards.
function compare(one, other, sign) {
  if (one === null || other === null) return (one === null) - (other === null);
  if (typeof one !== typeof other) return typeof one === "number" ? -1 : 1;
  if (typeof one === "number") return sign * (one - other);
  return sign * one.localeCompare(other, "en", { numeric: true });
}

// The heads that are of one column, by its number; a head may span rows, and others columns.
function columnHeads(table) {
  const taken = [];
  const found = [];
  [...table.tHead.rows].forEach((row, at) => {
    let column = 0;
    for (const head of row.cells) {
      while ((taken[column] ?? 0) > at) column += 1;
      const lowest = at + head.rowSpan === table.tHead.rows.length;
      if (lowest && head.colSpan === 1 && head.textContent) found.push([head, column]);
      for (let next = 0; next < head.colSpan; next += 1) taken[column + next] = at + head.rowSpan;
      column += head.colSpan;
    }
  });
  return found;
}

const rowsOf = (body) => [...body.rows].filter((row) => !row.querySelector(".part"));

// A head is a button: upwards, downwards, and as it was. Parts of a table keep their places.
function makeSortable(table) {
  const bodies = [...table.tBodies].map((body) => [body, rowsOf(body)]);
  const heads = columnHeads(table);
  for (const [head, column] of heads) {
    const button = document.createElement("button");
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const next = { ascending: "descending", descending: null }[head.getAttribute("aria-sort")];
      const order = next === undefined ? "ascending" : next;
      heads.forEach(([other]) => other.removeAttribute("aria-sort"));
      if (order) head.setAttribute("aria-sort", order);
      const sign = order === "descending" ? -1 : 1;
      for (const [body, rows] of bodies) {
        const keyed = rows.map((row) => [valueOf(row.cells[column]), row]);
        if (order) keyed.sort(([one], [other]) => compare(one, other, sign));
        body.append(...keyed.map(([, row]) => row));
      }
    });
  }
}

// A field above a table of many rows leaves those that have all of its words.
function makeFilterable(table) {
  const all = [...table.tBodies].flatMap(rowsOf);
  if (all.length < 10) return;
  const field = document.createElement("input");
  Object.assign(field, { type: "search", placeholder: "Filter rows" });
  field.setAttribute("aria-label", "Filter rows");
  const count = document.createElement("output");
  const line = document.createElement("p");
  line.className = "filter";
  line.append(field, count);
  table.parentElement.before(line);
  field.addEventListener("input", () => {
    const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const body of table.tBodies) {
      const title = body.querySelector(".part");
      const rows = rowsOf(body);
      for (const row of rows) {
        const text = `${title?.textContent ?? ""} ${row.textContent}`.toLowerCase();
        row.hidden = !words.every((word) => text.includes(word));
      }
      if (title) title.parentElement.hidden = rows.every((row) => row.hidden);
    }
    count.value = words.length ? `${all.filter((row) => !row.hidden).length} of ${all.length}` : "";
  });
}

for (const table of document.querySelectorAll("table")) {
  makeSortable(table);
  makeFilterable(table);
}
