// The status as it changes, told by the order service (server-sent events).
import { localise } from "./page.js";
import { renew } from "./session.js";

const PAUSE_MS = 3000;
const path = location.pathname;
let source;

async function refresh() {
  const answer = await fetch(`${path}?part=order`);
  if (answer.redirected) location.reload(); // to where one signs in
  if (answer.redirected || !answer.ok) return;
  const order = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("order");
  localise(order);
  document.getElementById("order").replaceWith(document.adoptNode(order));
  if (!["pending", "reserved", "authorised", "confirmed"].includes(order.dataset.status)) document.getElementById("cancel")?.remove();
}

function listen() {
  const order = document.getElementById("order");
  if ("final" in order.dataset) return;
  source = new EventSource(`${path}/events`);
  source.addEventListener("status", (event) => {
    // An event's id is its place in the history, also where a stream goes on after a cut with what is new alone.
    if (Number(event.lastEventId) > Number(document.getElementById("order").dataset.entries)) refresh();
  });
  source.addEventListener("error", () => {
    if ("final" in document.getElementById("order").dataset) { source.close(); return; }
    if (source.readyState !== EventSource.CLOSED) return; // the browser connects again by itself
    setTimeout(again, PAUSE_MS);
  });
}
// Nobody answered, or not as a stream: the sign-in may have run out, or a part of the shop is away.
async function again() {
  try {
    await renew();
    await refresh();
  } catch { /* it is away still, and so is the stream: after a pause once more */ }
  listen();
}

listen();
addEventListener("pagehide", () => source?.close());
addEventListener("pageshow", (event) => { if (event.persisted) { refresh(); listen(); } });
