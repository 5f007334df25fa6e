// The view in the page's address, `#trial=ID&position=q`: a link shows what its sender saw.
const state = new Map();

function readState() {
  state.clear();
  const words = location.hash.slice(1);
  if (!words.includes("=")) return; // a heading's anchor
  for (const [key, value] of new URLSearchParams(words)) state.set(key, value);
}

function keep(changes) {
  for (const [key, value] of Object.entries(changes)) {
    if (value === null || value === "") state.delete(key);
    else state.set(key, value);
  }
  const words = new URLSearchParams([...state]).toString();
  history.replaceState(null, "", words ? `#${words}` : location.pathname + location.search);
}

function make(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value === true) node.setAttribute(key, "");
    else if (value !== null && value !== false) node.setAttribute(key, value);
  }
  node.append(...children);
  return node;
}

function draw(name, attributes = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

// Headings are gone to without giving up the view that the address holds.
for (const link of document.querySelectorAll("nav a, a.skip")) {
  link.addEventListener("click", (event) => {
    const target = document.getElementById(link.hash.slice(1));
    if (!target || state.size === 0) return;
    event.preventDefault();
    target.scrollIntoView();
    target.tabIndex = -1;
    target.focus({ preventScroll: true });
  });
}

async function copy(text, button) {
  let done = true;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // No clipboard without the reader's leave, as from a file in some browsers: the older way.
    const area = make("textarea", { class: "spoken", "aria-hidden": "true" });
    area.value = text;
    document.body.append(area);
    area.select();
    done = document.execCommand("copy");
    area.remove();
    button.focus();
  }
  button.textContent = done ? "Copied" : "Select and copy";
  setTimeout(() => (button.textContent = "Copy"), 2000);
}

function copyButton(text, what) {
  const button = make("button", { type: "button", class: "copy", "aria-label": `Copy ${what}` });
  button.textContent = "Copy";
  button.addEventListener("click", () => copy(text, button));
  return button;
}

for (const place of document.querySelectorAll(".copied, #reproduce pre:has(code)")) {
  place.after(copyButton(place.textContent.trim(), "the command"));
}
readState();
