"use strict";
// Sorting and filtering only: everything can be read without this script.
const collator = new Intl.Collator("en", { numeric: true });

function wordsOf(row, column) {
  const cell = row.cells[column];
  return (cell.querySelector("summary") ?? cell).textContent.trim();
}

function sortBy(table, header, column) {
  const rising = header.getAttribute("aria-sort") !== "ascending";
  const isNumber = header.dataset.kind === "number";
  const keyed = [...table.tBodies[0].rows].map((row) => {
    const words = wordsOf(row, column);
    const key = isNumber ? Number.parseFloat(words) : words;
    return { row, key, missing: isNumber ? Number.isNaN(key) : words === "" || words === "-" };
  });
  keyed.sort((a, b) => {
    if (a.missing || b.missing) return a.missing - b.missing; // last, whatever the direction
    const order = isNumber ? a.key - b.key : collator.compare(a.key, b.key);
    return rising ? order : -order;
  });
  table.tBodies[0].append(...keyed.map((each) => each.row));
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", rising ? "ascending" : "descending");
}

for (const table of document.querySelectorAll("table.sortable")) {
  [...table.tHead.rows[0].cells].forEach((header, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    button.addEventListener("click", () => sortBy(table, header, column));
    header.append(button);
  });
}

function filterTrials(filters) {
  const rows = [...document.getElementById("trial-list").tBodies[0].rows];
  const texts = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));

  function filter() {
    const text = document.getElementById("search").value.trim().toLowerCase();
    const chosen = [...filters.querySelectorAll("select")].filter((each) => each.value !== "");
    let shown = 0;
    for (const row of rows) {
      row.hidden =
        !texts.get(row).includes(text) ||
        chosen.some((each) => wordsOf(row, Number(each.dataset.column)) !== each.value);
      shown += row.hidden ? 0 : 1;
    }
    document.getElementById("count").textContent = `${shown} of ${rows.length} shown`;
  }

  filters.addEventListener("input", filter);
  document.getElementById("show-all").addEventListener("click", () => {
    filters.reset();
    filter();
  });
  filters.addEventListener("submit", (event) => event.preventDefault());
  filters.hidden = false;
  filter();
}

const filters = document.getElementById("filters");
if (filters) filterTrials(filters); // a report of no trials of its own has none
