// Starts the view, and loads the page anew while the run goes on, with filters and place kept.
const PLACE = `place ${location.pathname}`;
const REST_MS = 2000; // after a key or a click, in which nothing moves under the reader's hands
const scrolled = () => [...document.querySelectorAll(".scroll")];
let touched = -REST_MS;
let waiting = null;
const every = Number(document.documentElement.dataset.every ?? 0);

function remembered() {
  try {
    const kept = sessionStorage.getItem(PLACE);
    sessionStorage.removeItem(PLACE);
    return kept === null ? null : JSON.parse(kept);
  } catch {
    return null; // a browser that keeps nothing for files
  }
}

function showView() {
  if (filters) {
    setFilters();
    sortAsKept();
    applyFilters();
  }
  if (data && state.has("trial") && trialOf(state.get("trial"))) showOpened(false);
}

function loadAnew() {
  const isBusy = performance.now() - touched < REST_MS || String(getSelection()) !== "";
  if (document.hidden || isBusy) {
    waiting = setTimeout(loadAnew, 500);
    return;
  }
  const boxes = scrolled().map((box) => [box.scrollLeft, box.scrollTop]);
  const place = { x: scrollX, y: scrollY, boxes, focus: document.activeElement?.id ?? "" };
  try {
    sessionStorage.setItem(PLACE, JSON.stringify(place));
  } catch {
    // The browser's own memory of the place has to do.
  }
  location.reload();
}

showView();
addEventListener("hashchange", () => {
  readState();
  showView();
  if (data) showOpened(false);
});
const place = remembered();
if (place) {
  if (place.focus) document.getElementById(place.focus)?.focus({ preventScroll: true });
  const boxes = scrolled();
  if (boxes.length === place.boxes.length) boxes.forEach((box, n) => box.scrollTo(...place.boxes[n]));
  scrollTo({ left: place.x, top: place.y, behavior: "instant" });
}
if (every > 0) {
  for (const kind of ["keydown", "pointerdown", "input"]) {
    addEventListener(kind, () => (touched = performance.now()), true);
  }
  waiting = setTimeout(loadAnew, 1000 * every);
  const pause = document.getElementById("pause");
  pause.hidden = false;
  pause.addEventListener("click", () => {
    clearTimeout(waiting);
    const goesOn = pause.textContent === "Pause";
    pause.textContent = goesOn ? "Go on" : "Pause";
    if (!goesOn) waiting = setTimeout(loadAnew, 1000);
  });
}
