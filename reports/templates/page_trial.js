// The opened trial, beside a second one if asked for: scores, settings, curves, classes, command.
const opened = document.getElementById("opened");
const trialOf = (id) => trials.find((each) => each.id === id) ?? null;
const cellKey = (trial) => trial.words.slice(1, 1 + data.axes).join("\u0000");
const seedColumn = () => 1 + data.axes;

function open(id, { focus = true } = {}) {
  if (id === state.get("with")) keep({ with: null });
  keep({ trial: id });
  showOpened(focus);
}

function showOpened(focus) {
  const first = trialOf(state.get("trial"));
  const second = first && trialOf(state.get("with"));
  opened.hidden = first === null;
  for (const trial of trials) trial.row.classList.toggle("opened", trial === first || trial === second);
  for (const cell of document.querySelectorAll("#map button")) {
    cell.classList.toggle("opened", first !== null && (cell.dataset.trials ?? "").includes(first.id));
  }
  if (first === null) return opened.replaceChildren();
  const shown = second ? [second, first] : [first];
  const close = make("button", { type: "button", onclick: closeOpened }, "Close");
  const head = make("div", { class: "head" },
    make("h3", {}, second ? "Two trials side by side" : "Opened trial"), close);
  const cards = make("div", { class: "cards" }, ...shown.map((trial) => card(trial, shown)));
  opened.replaceChildren(head, cards);
  if (focus) {
    opened.focus({ preventScroll: true });
    opened.scrollIntoView({ block: "nearest" });
  }
}

function closeOpened() {
  const id = state.get("trial");
  keep({ trial: null, with: null });
  showOpened(false);
  const cell = [...document.querySelectorAll("#map button")].find((each) => (each.dataset.trials ?? "").includes(id));
  cell?.focus();
}

function facts(trial, others) {
  const list = make("dl", { class: "facts" });
  columns.forEach((name, column) => {
    if (column === 0 || trial.words[column] === "-") return;
    const differs = others.some((other) => other.words[column] !== trial.words[column]);
    const words = make("dd", {}, differs && column <= seedColumn()
      ? make("mark", {}, trial.words[column]) : trial.words[column]);
    list.append(make("div", {}, make("dt", {}, name), words));
  });
  return list;
}

function card(trial, shown) {
  const detail = data.trials[trial.id] ?? {};
  const title = make("h4", {}, make("code", {}, trial.id));
  if (trial.isChosen) title.append(" ", make("span", { class: "badge" }, "chosen"));
  const found = make("article", { class: "card", "aria-label": `Trial ${trial.id}` }, title);
  found.append(siblings(trial, shown), facts(trial, shown));
  const all = shown.map((each) => data.trials[each.id] ?? {});
  const last = Math.max(1, ...all.flatMap((each) => each.e ?? []));
  const curves = [["s", data.score], ["l", "training loss"]].filter(([key]) => detail[key]?.some(isNumber));
  const drawn = curves.map(([key, name]) => {
    const range = rangeOf(all.flatMap((each) => each[key] ?? []));
    return curve(name, detail.e, detail[key], range, last);
  });
  if (drawn.length > 0) found.append(make("div", { class: "curves" }, ...drawn));
  if (detail.c) found.append(classBars(detail));
  if (curves.length === 0 && !detail.c) {
    found.append(make("p", { class: "unit" }, trial.status === "missing"
      ? "Not run yet." : "No curve and no classes are kept of it here."));
  }
  if (trial.command) {
    const command = make("code", { class: "command" }, trial.command);
    found.append(make("h5", {}, "Train it again"), command, copyButton(trial.command, "the command"));
  }
  return found;
}

// The other seeds of its configuration, and what it can be compared with.
function siblings(trial, shown) {
  const bar = make("p", { class: "siblings" });
  const button = (words, action, pressed) =>
    bar.append(make("button", { type: "button", onclick: action, "aria-pressed": pressed }, words));
  if (trial !== shown.at(-1)) {
    button("Take away", () => { keep({ with: null }); showOpened(true); }, null);
    return bar;
  }
  const same = trials.filter((each) => cellKey(each) === cellKey(trial));
  if (same.length > 1 && same.length <= 12) {
    for (const each of same) {
      button(`seed ${each.words[seedColumn()]}`, () => open(each.id), String(each === trial));
    }
  }
  if (shown.length > 1) return bar;
  const chosen = trials.find((each) => each.isChosen);
  if (chosen && !trial.isChosen) {
    button("Beside the chosen", () => { keep({ with: chosen.id }); showOpened(true); }, null);
  }
  const others = trials.filter((each) => each !== trial && !each.row.hidden).slice(0, 300);
  if (others.length > 0) {
    const select = make("select", { "aria-label": "Compare with another trial" },
      make("option", { value: "" }, "Compare with …"),
      ...others.map((each) => make("option", { value: each.id },
        `${each.words.slice(1, 2 + data.axes).join(" · ")} · ${each.words[data.select + 1]}`)));
    select.addEventListener("change", () => { keep({ with: trial.id }); open(select.value); });
    bar.append(select);
  }
  return bar;
}

if (data) {
  for (const trial of trials) {
    const button = make("button", { type: "button", class: "open", "aria-label": `Open trial ${trial.id}` }, "Open");
    button.addEventListener("click", () => open(trial.id));
    trial.row.cells[0].append(" ", button);
  }
}
