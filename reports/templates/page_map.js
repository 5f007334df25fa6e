// A table of means over two axes, of the trials that the filters leave; a cell opens its trials.
const MOST_VALUES = 12; // of an axis of numbers that stand for themselves; more fall into parts
const PARTS = 6;
const number = (words) => Number.parseFloat(words);

function binsOf(column) {
  const values = [...new Set(trials.map((trial) => trial.words[column]))];
  const numeric = values.every((value) => value === "-" || value === "none" || !Number.isNaN(Number(value)));
  const filter = filters?.querySelector(`select[data-column="${column}"]`);
  if (!numeric || values.length <= MOST_VALUES) {
    const order = filter ? [...filter.options].slice(1).map((each) => each.value) : values;
    if (!filter && numeric) order.sort((a, b) => number(a) - number(b));
    return order.map((value) => ({ name: value, has: (words) => words === value }));
  }
  const sorted = values.map(number).filter((value) => !Number.isNaN(value)).sort((a, b) => a - b);
  const edges = Array.from({ length: PARTS }, (_, n) => sorted[Math.floor((n * sorted.length) / PARTS)]);
  return edges.map((low, n) => {
    const end = edges[n + 1] ?? Infinity;
    const high = sorted.filter((value) => value < end).at(-1);
    return { name: `${short(low)} – ${short(high)}`, has: (words) => number(words) >= low && number(words) < end };
  });
}

function mapColumns() {
  const found = [];
  for (let column = 1; column <= 1 + data.axes; column++) {
    if (new Set(trials.map((trial) => trial.words[column])).size > 1) found.push(column);
  }
  return found;
}

const candidates = data ? mapColumns() : [];
const valueColumns = data ? columns.map((_, n) => n).filter((n) => n > data.select) : [];

function chosenColumn(key, among, fallback) {
  const column = columns.indexOf(state.get(key) ?? "");
  return among.includes(column) ? column : fallback;
}

function mapView() {
  const named = data.view.map((name) => columns.indexOf(name)).filter((n) => candidates.includes(n));
  const [rows, across] = [...new Set([...named, ...candidates])];
  const value = chosenColumn("value", valueColumns, data.select + 1);
  const chosenRows = chosenColumn("rows", candidates, rows);
  const others = candidates.filter((column) => column !== chosenRows);
  const fallback = others.includes(across) ? across : others[0];
  return { rows: chosenRows, across: chosenColumn("across", others, fallback), value };
}

// A step of blue and the ink that can be read on it, the same in light and dark.
function colours(share) {
  const [light, dark] = [[228, 240, 250], [10, 56, 112]];
  const ground = light.map((from, n) => Math.round(from + share * (dark[n] - from)));
  const linear = ground.map((c) => c / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
  const bright = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  return [`rgb(${ground})`, bright > 0.179 ? "#000000" : "#ffffff"];
}

function summaryOf(cell, value) {
  const scores = cell.map((trial) => number(trial.words[value])).filter((each) => !Number.isNaN(each));
  const mean = scores.length ? scores.reduce((a, b) => a + b, 0) / scores.length : null;
  return { cell, mean, count: scores.length };
}

function mapCell(found, place, shareOf, view) {
  const { cell, mean, count } = found;
  if (cell.length === 0) return make("td", {}, "");
  const states = [...new Set(cell.map((trial) => trial.status))].join(", ");
  const words = mean === null ? states : mean.toFixed(Math.abs(mean) < 10 && view.value === data.select + 1 && data.less_is_better ? 3 : 1);
  const best = cell.filter((t) => !Number.isNaN(number(t.words[view.value])));
  const isChosen = cell.some((trial) => trial.isChosen);
  const several = count > 1 ? `, mean of ${count} trials` : "";
  const button = make("button", {
    type: "button", id: `cell-${place[0]}-${place[1]}`, tabindex: "-1", class: isChosen ? "chosen" : null,
    "data-trials": cell.map((trial) => trial.id).join(" "),
    "aria-label": `${place[2]}: ${words}${several}${isChosen ? ", chosen" : ""}. Open.`,
  }, words);
  if (count > 1) button.append(make("small", { "aria-hidden": "true" }, `×${count}`));
  if (mean !== null) [button.style.background, button.style.color] = colours(shareOf(mean));
  button.addEventListener("click", () => open((cell.find((trial) => trial.isChosen) ?? best[0] ?? cell[0]).id));
  return make("td", {}, button);
}

function drawMap() {
  const view = mapView();
  if (view.rows === undefined) return;
  const shown = trials.filter((trial) => !trial.row.hidden);
  const rows = binsOf(view.rows);
  const across = view.across === undefined
    ? [{ name: columns[view.value], has: () => true }] : binsOf(view.across);
  const grid = rows.map((row) => across.map((column) => summaryOf(shown.filter((trial) =>
    row.has(trial.words[view.rows]) && (view.across === undefined || column.has(trial.words[view.across]))), view.value)));
  const means = grid.flat().map((each) => each.mean).filter(isNumber);
  const [low, high] = [Math.min(...means), Math.max(...means)];
  const turned = data.less_is_better && view.value === data.select + 1;
  const shareOf = (mean) => {
    const share = high > low ? (mean - low) / (high - low) : 0.5;
    return turned ? 1 - share : share;
  };
  const corner = view.across === undefined ? columns[view.rows] : `${columns[view.rows]} \\ ${columns[view.across]}`;
  const head = make("tr", {}, make("th", { scope: "col" }, corner),
    ...across.map((each) => make("th", { scope: "col" }, each.name)));
  const body = rows.map((row, r) => make("tr", {}, make("th", { scope: "row" }, row.name),
    ...across.map((column, c) => mapCell(grid[r][c], [r, c, `${row.name}, ${column.name}`], shareOf, view))));
  const table = make("table", { "aria-labelledby": "map-title" },
    make("thead", {}, head), make("tbody", {}, ...body));
  document.getElementById("map").replaceChildren(table);
  const first = table.querySelector("button.chosen") ?? table.querySelector("button");
  first?.setAttribute("tabindex", "0");
  const averaged = candidates.filter((column) => column !== view.rows && column !== view.across && columns[column] !== "seed"
    && !filters.querySelector(`select[data-column="${column}"]`)?.value);
  const over = averaged.length ? ` Averaged over ${averaged.map((n) => columns[n]).join(", ")}: filter by them for a slice.` : "";
  document.getElementById("map-words").textContent =
    `${columns[view.value]}; means of the trials shown, the darker the better.${over} Arrow keys move between cells.`;
}

function chooser(label, key, among, current) {
  const select = make("select", { id: `map-${key}` }, ...among.map((column) => make("option", {}, columns[column])));
  select.value = columns[current];
  select.addEventListener("change", () => { keep({ [key]: select.value }); refreshMap(); });
  return make("label", {}, `${label} `, select);
}

function refreshMap() {
  const view = mapView();
  const bar = document.getElementById("map-choosers");
  const focused = document.activeElement?.id ?? "";
  const others = candidates.filter((column) => column !== view.rows);
  bar.replaceChildren(chooser("rows", "rows", candidates, view.rows),
    ...(others.length ? [chooser("columns", "across", others, view.across)] : []),
    chooser("value", "value", valueColumns, view.value));
  if (focused.startsWith("map-")) document.getElementById(focused)?.focus();
  drawMap();
  showOpened(false);
}

function moveInMap(event) {
  const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
  if (!step || !event.target.id.startsWith("cell-")) return;
  let [row, column] = event.target.id.split("-").slice(1).map(Number);
  event.preventDefault();
  for (let left = 100; left > 0; left--) {
    [row, column] = [row + step[0], column + step[1]];
    const next = document.getElementById(`cell-${row}-${column}`);
    if (!next) continue;
    event.target.tabIndex = -1;
    next.tabIndex = 0;
    return next.focus();
  }
}

if (data && candidates.length > 0) {
  document.getElementById("explorer").hidden = false;
  document.getElementById("map").addEventListener("keydown", moveInMap);
  whenFiltered.push(refreshMap);
}
