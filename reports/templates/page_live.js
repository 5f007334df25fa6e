// Starts the view, and loads the page anew while the run goes on, with filters and place kept.
const PLACE = `place ${location.pathname}`;
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
  const typing = document.activeElement?.matches("input, select") || String(getSelection()) !== "";
  if (document.hidden || typing) return setTimeout(loadAnew, 1000);
  const place = { x: scrollX, y: scrollY, focus: document.activeElement?.id ?? "" };
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
  scrollTo({ left: place.x, top: place.y, behavior: "instant" });
}
if (every > 0) {
  let waiting = setTimeout(loadAnew, 1000 * every);
  const pause = document.getElementById("pause");
  pause.hidden = false;
  pause.addEventListener("click", () => {
    clearTimeout(waiting);
    const goesOn = pause.textContent === "Pause";
    pause.textContent = goesOn ? "Go on" : "Pause";
    if (!goesOn) waiting = setTimeout(loadAnew, 1000);
  });
}
