// Parallel coordinates: a line for every trial that is shown, over all axes and the score.
const MOST_LINES = 400;

function scaleOf(column, height, top) {
  const values = [...new Set(trials.map((trial) => trial.words[column]))];
  const numbers = values.map(Number);
  const bins = values.length > MOST_VALUES && !numbers.some(Number.isNaN) ? null : binsOf(column);
  if (bins && column !== data.select + 1) {
    const place = new Map(bins.map((bin, n) => [bin.name, top + (height * (n + 0.5)) / bins.length]));
    return { y: (words) => place.get(words), ticks: [...place] };
  }
  const known = values.map(number).filter((each) => !Number.isNaN(each));
  const range = rangeOf(known) ?? [0, 1];
  const isLog = column !== data.select + 1 && Math.min(...known) > 0 && Math.max(...known) / Math.min(...known) > 50;
  const turn = isLog ? Math.log : (value) => value;
  const [low, high] = isLog ? [Math.min(...known), Math.max(...known)] : range;
  const y = (words) => top + height * (1 - (turn(number(words)) - turn(low)) / (turn(high) - turn(low)));
  const ticks = isLog ? [low, Math.sqrt(low * high), high] : roundSteps(range);
  return { y, ticks: ticks.map((tick) => [short(tick), y(tick)]) };
}

function tickLabel(column, x, [name, y], isLast, place) {
  const select = filters.querySelector(`select[data-column="${column}"]`);
  const text = draw("text", { x: isLast ? x + 8 : x - 6, y: isLast ? y + 4 : y - 6, class: isLast ? "tick" : "tick end" }, name);
  if (!select || ![...select.options].some((each) => each.value === name)) return text;
  const toggle = () => {
    select.value = select.value === name ? "" : name;
    keepFilters();
  };
  const isOn = select.value === name;
  for (const [key, value] of Object.entries({
    role: "button", tabindex: "0", "aria-pressed": isOn, "aria-label": `${columns[column]} = ${name}: filter`,
    id: `tick-${column}-${place}`,
  })) text.setAttribute(key, value);
  text.classList.add("choice-tick");
  text.addEventListener("click", toggle);
  text.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    toggle();
    document.getElementById(`tick-${column}-${place}`)?.focus();
  });
  return text;
}

function drawLines() {
  const axes = candidates.filter((column) => column <= data.axes);
  const score = data.select + 1;
  const part = document.getElementById("lines-part");
  part.hidden = axes.length < 2;
  if (part.hidden) return;
  const scored = trials.filter((t) => !t.row.hidden && !Number.isNaN(number(t.words[score])));
  const sign = data.less_is_better ? 1 : -1;
  scored.sort((a, b) => sign * (number(a.words[score]) - number(b.words[score])));
  const drawn = scored.slice(0, MOST_LINES).reverse(); // the best on top
  const [top, height, gap] = [34, 220, 170];
  const all = [...axes, score];
  const width = 110 + gap * (all.length - 1) + 60;
  const x = new Map(all.map((column, n) => [column, 110 + gap * n]));
  const scales = new Map(all.map((column) => [column, scaleOf(column, height, top)]));
  const drawing = draw("svg", {
    viewBox: `0 0 ${width} ${top + height + 16}`, width, class: "lines", role: "group",
    "aria-label": `A line for each of ${drawn.length} trials over ${all.map((n) => columns[n]).join(", ")}; the list has the same numbers`,
  });
  drawn.forEach((trial, rank) => {
    const points = all.map((column) => [x.get(column), scales.get(column).y(trial.words[column])])
      .filter(([, y]) => isNumber(y)).map(([a, b]) => `${a},${b.toFixed(1)}`);
    const line = draw("polyline", { points: points.join(" "), class: "line" });
    line.style.opacity = (0.12 + 0.88 * ((rank + 1) / drawn.length) ** 2).toFixed(2);
    if (trial.isChosen) line.classList.add("chosen");
    if (trial.id === state.get("trial")) line.classList.add("opened");
    line.append(draw("title", {}, `${trial.words.slice(1, 2 + data.axes).join(", ")}: ${trial.words[score]}`));
    line.addEventListener("click", () => open(trial.id));
    drawing.append(line);
  });
  for (const column of all) {
    const at = x.get(column);
    drawing.append(draw("line", { x1: at, x2: at, y1: top, y2: top + height, class: "axis" }));
    drawing.append(draw("text", { x: at, y: 16, class: "name" }, columns[column]));
    scales.get(column).ticks.forEach((tick, n) => drawing.append(tickLabel(column, at, tick, column === score, n)));
  }
  document.getElementById("lines").replaceChildren(drawing);
  const left = scored.length - drawn.length;
  document.getElementById("lines-words").textContent =
    `A line is a trial, the stronger the better its score; red: chosen.${left > 0 ? ` The best ${drawn.length} of ${scored.length}.` : ""} A click on a value filters by it, on a line opens its trial.`;
}

if (data && candidates.length > 0) whenFiltered.push(drawLines);
