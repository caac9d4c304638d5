// Behind the page: which replica of which service answered, in how long, in which trace, after how many retries. All of it
// is what the answers' Server-Timing header says; the last minute is kept for this tab.
const KEPT_MS = 60_000;
const KEY = "souk-strip";
const SERVICE_OF = { auth: "user", users: "user", products: "product", categories: "product", payments: "payment", cart: "order", orders: "order" };
const SVG = "http://www.w3.org/2000/svg";
let seen = JSON.parse(sessionStorage.getItem(KEY) ?? "[]");
let latest = [];
let trace = "";

function read(entry) {
  const timing = entry.serverTiming ?? [];
  if (!timing.length) return;
  const at = performance.timeOrigin + entry.responseStart;
  const own = {};
  const calls = [];
  for (const { name, duration, description } of timing) {
    if (["app", "replica", "trace", "retries"].includes(name)) own[name] = name === "app" ? duration : description;
    else calls.push({ at, service: name, replica: description.split(" ")[0], ms: duration, retries: Number(description.split(" ")[1]) });
  }
  const path = new URL(entry.name).pathname;
  const first = path.startsWith("/api/") ? SERVICE_OF[path.split("/")[3]] : path.startsWith("/pictures/") ? "product" : "storefront";
  if (own.replica) calls.unshift({ at, service: first, replica: own.replica, ms: own.app, retries: Number(own.retries) });
  seen.push(...calls);
  // A page, or a part of one that a script asked for: not its style sheet or its pictures.
  if (entry.entryType === "navigation" || (first === "storefront" && calls.length > 1)) { latest = calls; trace = own.trace ?? ""; }
}

function draw() {
  const now = Date.now();
  seen = seen.filter((call) => now - call.at < KEPT_MS);
  try { sessionStorage.setItem(KEY, JSON.stringify(seen.slice(-600))); } catch { /* full or forbidden: it is a picture only */ }
  const strip = document.getElementById("strip");
  if (!strip.open) return;
  const table = document.createElement("table");
  for (const call of latest) {
    const row = table.insertRow();
    for (const text of [call.service, call.replica, `${call.ms.toFixed(1)} ms`, call.retries ? `${call.retries} again` : ""]) row.insertCell().textContent = text;
  }
  const traced = document.createElement("p");
  traced.textContent = trace ? `trace ${trace}` : "";
  document.getElementById("strip-now").replaceChildren(table, traced);

  const replicas = Map.groupBy(seen, (call) => `${call.service} ${call.replica}`);
  const longest = Math.max(20, ...seen.map((call) => call.ms));
  const figures = [...replicas].sort(([one], [other]) => one.localeCompare(other)).map(([name, calls]) => {
    const figure = document.createElement("figure");
    const caption = document.createElement("figcaption");
    const mean = calls.reduce((sum, call) => sum + call.ms, 0) / calls.length;
    caption.textContent = `${name}: ${calls.length} in the last minute, ${mean.toFixed(1)} ms on average`;
    const picture = document.createElementNS(SVG, "svg");
    picture.setAttribute("viewBox", "0 0 600 56");
    picture.setAttribute("preserveAspectRatio", "none");
    picture.setAttribute("aria-hidden", "true");
    for (const call of calls) {
      const bar = document.createElementNS(SVG, "rect");
      const height = Math.max(3, 54 * Math.sqrt(call.ms / longest)); // one that took long must not flatten the others
      bar.setAttribute("x", String(600 - ((now - call.at) / KEPT_MS) * 600 - 2));
      bar.setAttribute("y", String(56 - height));
      bar.setAttribute("width", "2");
      bar.setAttribute("height", String(height));
      bar.setAttribute("class", call.retries ? "bar again" : "bar");
      picture.append(bar);
    }
    figure.append(caption, picture);
    return figure;
  });
  document.getElementById("strip-minute").replaceChildren(...figures);
}

for (const type of ["navigation", "resource"]) {
  new PerformanceObserver((list) => { list.getEntries().forEach(read); draw(); }).observe({ type, buffered: true });
}
const strip = document.getElementById("strip");
strip.open = sessionStorage.getItem("souk-strip-open") === "yes";
strip.addEventListener("toggle", () => { sessionStorage.setItem("souk-strip-open", strip.open ? "yes" : "no"); draw(); });
setInterval(() => { if (strip.open && document.visibilityState === "visible") draw(); }, 1000);
setInterval(() => {
  if (!document.getElementById("strip-pulse").checked || document.visibilityState !== "visible") return;
  fetch("/?part=results&sort=newest", { cache: "no-store" }).catch(() => {});
  performance.clearResourceTimings();
}, 500);
