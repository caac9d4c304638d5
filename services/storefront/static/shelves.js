// Search as you type, and the next products as the end comes into view. The address always tells what is shown, so a
// reload, a bookmark or the way back shows it again.
const MOST_PAGES = 5;
const results = () => document.getElementById("results");
const search = document.getElementById("q");
const filters = document.getElementById("filter-form");
let asked = 0;

async function fetched(address, signal) {
  const url = new URL(address, location.origin);
  url.searchParams.set("part", "results");
  const answer = await fetch(url, { signal });
  if (!answer.ok) throw new Error(String(answer.status));
  return new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("results");
}

function address() {
  const url = new URL("/", location.origin);
  const fields = new FormData(filters);
  fields.set("q", search.value.trim());
  for (const [name, value] of fields) if (value) url.searchParams.set(name, value);
  return url;
}

// The categories and the form beside the shelves go on with what is asked for now, and the title says it.
function carry(url) {
  const words = url.searchParams.get("q") ?? "";
  for (const hidden of filters.querySelectorAll("input[name=q]")) hidden.remove();
  if (words) {
    const hidden = document.createElement("input");
    [hidden.type, hidden.name, hidden.value] = ["hidden", "q", words];
    filters.append(hidden);
  }
  for (const link of document.querySelectorAll(".categories a")) {
    const category = new URL(link.href).searchParams.get("category");
    const target = new URL(url);
    target.searchParams.delete("category");
    if (category) target.searchParams.set("category", category);
    link.href = target.pathname + target.search;
  }
  document.title = words ? `${words} – Souk` : "Souk";
}

let controller = new AbortController();
async function show() {
  const turn = ++asked;
  controller.abort();
  controller = new AbortController();
  const url = address();
  results().setAttribute("aria-busy", "true");
  try {
    const found = await fetched(url, controller.signal);
    if (turn !== asked) return;
    results().replaceWith(document.adoptNode(found));
    history.replaceState(null, "", url);
    carry(url);
    watch();
  } catch (error) {
    if (error.name !== "AbortError") results().setAttribute("aria-busy", "false");
  }
}

let typing;
search.addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(show, 200); });
filters.addEventListener("change", show);

// The next page is appended. Up to five pages are kept in the address; after that it begins at a later one.
async function more(link) {
  if (link.dataset.busy) return;
  link.dataset.busy = "yes";
  try {
    const found = await fetched(link.href);
    if (!link.isConnected) return; // something else was searched for meanwhile
    const grid = document.getElementById("grid");
    const items = [...(found.querySelector("#grid")?.children ?? [])];
    grid.append(...items.map((item) => document.adoptNode(item)));
    const shown = document.getElementById("shown");
    const next = found.querySelector("#more");
    const url = new URL(location);
    const words = url.searchParams.get("q");
    const count = grid.children.length.toLocaleString(undefined, { numberingSystem: "latn" });
    if (shown) shown.textContent = `${count} products${next ? " and more" : ""}${words ? ` for “${words}”` : ""}`;
    const pages = Number(link.dataset.pages) + 1;
    if (pages <= MOST_PAGES) {
      url.searchParams.set("pages", String(pages));
    } else {
      url.searchParams.set("cursor", link.dataset.cursor);
      url.searchParams.delete("pages");
    }
    history.replaceState(null, "", url);
    if (next) {
      next.dataset.pages = pages <= MOST_PAGES ? String(pages) : "1";
      link.replaceWith(document.adoptNode(next));
      watch();
    } else {
      link.parentElement.remove();
    }
  } catch {
    delete link.dataset.busy; // the link stays, and works as a link
  }
}

const ends = new IntersectionObserver((entries) => {
  for (const entry of entries) if (entry.isIntersecting) more(entry.target);
}, { rootMargin: "600px" });
function watch() {
  ends.disconnect();
  const link = document.getElementById("more");
  if (link) ends.observe(link);
}
// Not before somebody scrolls: who only looks at the top loads no more than that.
addEventListener("scroll", watch, { once: true, passive: true });
document.addEventListener("click", (event) => {
  const link = event.target instanceof Element ? event.target.closest("#more") : null;
  if (!link || event.metaKey || event.ctrlKey || event.shiftKey) return;
  event.preventDefault();
  more(link);
});
