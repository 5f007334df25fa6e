// Small drawings of one trial. Colours are the style sheet's, so that they fit light and dark.
const dataPart = document.getElementById("data");
const data = dataPart ? JSON.parse(dataPart.textContent) : null;

const isNumber = (value) => typeof value === "number" && Number.isFinite(value);
const short = (value) => (isNumber(value) ? String(Number(value.toPrecision(4))) : "-");

function rangeOf(values) {
  const known = values.filter(isNumber);
  if (known.length === 0) return null;
  const [low, high] = [Math.min(...known), Math.max(...known)];
  const room = (high - low || Math.abs(high) || 1) * 0.08;
  return [low - room, high + room];
}

function roundSteps([low, high]) {
  const rough = (high - low) / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((each) => each * power).find((each) => each >= rough);
  const ticks = [];
  for (let tick = Math.ceil(low / step) * step; tick <= high; tick += step) {
    ticks.push(Number(tick.toPrecision(6)));
  }
  return ticks;
}

// A curve over epochs; `range` is shared by trials that stand side by side.
function curve(title, epochs, values, range, lastEpoch) {
  const [width, height, left, bottom, top] = [360, 150, 44, 24, 8];
  const x = (epoch) => left + ((width - left - 10) * (epoch - 1)) / Math.max(1, lastEpoch - 1);
  const y = (value) =>
    top + ((height - top - bottom) * (range[1] - value)) / (range[1] - range[0]);
  const points = epochs.map((epoch, n) => [epoch, values[n]]).filter(([, v]) => isNumber(v));
  const first = points[0];
  const last = points.at(-1);
  const words = `${title}: ${short(first[1])} at epoch ${first[0]}, ${short(last[1])} at epoch ${last[0]}`;
  const drawing = draw("svg", {
    viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": words, class: "chart",
  });
  for (const tick of roundSteps(range)) {
    const text = draw("text", { x: left - 6, y: y(tick) + 4, class: "tick end" }, short(tick));
    drawing.append(draw("line", { x1: left, x2: width - 10, y1: y(tick), y2: y(tick), class: "grid" }), text);
  }
  for (const epoch of new Set([1, lastEpoch])) {
    const anchor = epoch === 1 ? "tick" : "tick end";
    drawing.append(draw("text", { x: x(epoch), y: height - 7, class: anchor }, `epoch ${epoch}`));
  }
  const path = points.map(([epoch, value]) => `${x(epoch).toFixed(1)},${y(value).toFixed(1)}`);
  drawing.append(draw("polyline", { points: path.join(" "), class: "curve" }));
  for (const [epoch, value] of points) {
    const dot = draw("circle", { cx: x(epoch), cy: y(value), r: points.length > 30 ? 1.5 : 3, class: "dot" });
    dot.append(draw("title", {}, `epoch ${epoch}: ${short(value)}`));
    drawing.append(dot);
  }
  return make("figure", { class: "small" }, make("figcaption", {}, title), drawing);
}

const MOST_CLASSES = 60;

// Test accuracy by class: as bars, in the data's order; of very many the worst and the best.
function classBars(detail) {
  const { names, counts } = data.classes[detail.n];
  let rows = detail.c.map((share, n) => ({ share, name: names[n], count: counts[n] }));
  let title = "Test accuracy by class (%)";
  if (rows.length > MOST_CLASSES) {
    title += `, the ${MOST_CLASSES / 2} worst and best of ${rows.length}`;
    rows = rows.filter((row) => row.share !== null).sort((a, b) => a.share - b.share);
    rows = [...rows.slice(0, MOST_CLASSES / 2), ...rows.slice(-MOST_CLASSES / 2)];
  }
  const bars = rows.map(({ share, name, count }) => {
    const bar = make("span", { class: "bar" });
    bar.style.width = `${share ?? 0}%`;
    const images = `${count} test image${count === 1 ? "" : "s"}`;
    return make("div", { title: `${name}: ${images}` },
      make("dt", {}, name),
      make("dd", {},
        make("span", { class: "track", "aria-hidden": "true" }, bar),
        make("span", { class: "figure" }, share === null ? "no images" : share.toFixed(1))));
  });
  const box = make("div", { class: "scroll classes", tabindex: "0", role: "region", "aria-label": title },
    make("dl", { class: "shares" }, ...bars));
  return make("figure", { class: "small" }, make("figcaption", {}, title), box);
}
