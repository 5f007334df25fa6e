// Sorting and filtering: everything can be read without this script.
const collator = new Intl.Collator("en", { numeric: true });

function wordsOf(row, column) {
  const cell = row.cells[column];
  return (cell.querySelector("summary") ?? cell).textContent.trim();
}

function sortBy(table, column, rising) {
  const header = table.tHead.rows[0].cells[column];
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
    button.addEventListener("click", () => {
      const rising = header.getAttribute("aria-sort") !== "ascending";
      sortBy(table, column, rising);
      if (table.id === "trial-list") keep({ sort: `${rising ? "" : "-"}${column}` });
    });
    header.append(button);
  });
}


// The listed trials: `words` are their cells, the name first.
const list = document.getElementById("trial-list");
const trials = [...(list ? list.tBodies[0].rows : [])].map((row) => ({
  row,
  id: wordsOf(row, 0),
  words: [...row.cells].map((_, column) => wordsOf(row, column)),
  text: row.textContent.toLowerCase(),
  status: row.className,
  isChosen: row.querySelector("th .badge") !== null,
  command: row.querySelector("details code")?.textContent ?? null,
}));
const columns = list ? [...list.tHead.rows[0].cells].map((cell) => cell.textContent.trim()) : [];
const filters = document.getElementById("filters");
const whenFiltered = []; // what is drawn of the trials that are shown

function applyFilters() {
  const text = document.getElementById("search").value.trim().toLowerCase();
  const chosen = [...filters.querySelectorAll("select")].filter((each) => each.value !== "");
  let shown = 0;
  for (const trial of trials) {
    trial.row.hidden =
      !trial.text.includes(text) ||
      chosen.some((each) => trial.words[Number(each.dataset.column)] !== each.value);
    shown += trial.row.hidden ? 0 : 1;
  }
  document.getElementById("count").textContent = `${shown} of ${trials.length} shown`;
  for (const redraw of whenFiltered) redraw();
}

const filterKey = (select) => `f.${columns[Number(select.dataset.column)]}`;

function keepFilters() {
  const changes = { text: document.getElementById("search").value };
  for (const select of filters.querySelectorAll("select")) {
    changes[filterKey(select)] = select.value;
  }
  keep(changes);
  applyFilters();
}

function setFilters() {
  document.getElementById("search").value = state.get("text") ?? "";
  for (const select of filters.querySelectorAll("select")) {
    select.value = state.get(filterKey(select)) ?? "";
    if (select.selectedIndex < 0) select.value = ""; // a value that the page no longer has
  }
}

if (filters) {
  filters.addEventListener("input", keepFilters);
  filters.addEventListener("submit", (event) => event.preventDefault());
  document.getElementById("show-all").addEventListener("click", () => {
    filters.reset();
    keepFilters();
  });
  filters.hidden = false;
}

function sortAsKept() {
  const column = Number(state.get("sort"));
  if (!state.has("sort") || Math.abs(column) >= columns.length) return;
  sortBy(list, Math.abs(column), !Object.is(column, -0) && column > -0.5);
}
