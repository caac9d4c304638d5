// What every page does beyond its HTML. Nothing here is needed to buy.
import { renewInTime } from "./session.js";

renewInTime();

// Times in the reader's own time zone; the server, which does not know it, wrote them in UTC.
const clock = new Intl.DateTimeFormat(navigator.languages, { dateStyle: "medium", timeStyle: "medium" });
export function localise(within) {
  for (const time of within.querySelectorAll("time[datetime]")) time.textContent = clock.format(new Date(time.dateTime));
}
localise(document);

// A picture that does not come is replaced by a drawn one.
function replace(image) {
  const drawn = image.dataset.fallback;
  if (drawn && !image.src.endsWith(drawn)) image.src = drawn;
}
document.addEventListener("error", (event) => { if (event.target instanceof HTMLImageElement) replace(event.target); }, true);
for (const image of document.images) if (image.complete && !image.naturalWidth) replace(image);

// What went wrong is where the keyboard goes on.
document.querySelector("[data-focus]")?.focus();

// Into the cart without leaving the page.
const toast = document.getElementById("toast");
document.addEventListener("submit", async (event) => {
  const form = event.target;
  if (!(form instanceof HTMLFormElement) || !form.hasAttribute("data-add")) return;
  event.preventDefault();
  const quantity = Number(new FormData(form).get("quantity"));
  try {
    const answer = await fetch(form.action, { method: "POST", body: new URLSearchParams(new FormData(form)) });
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const problem = answer.ok ? null : page.querySelector("#main [role=alert]");
    if (!answer.ok && !problem) throw new Error(String(answer.status));
    const shown = answer.ok && page.getElementById("cart-count");
    if (shown) document.getElementById("cart-count").replaceWith(document.adoptNode(shown));
    toast.textContent = problem?.textContent.trim() ?? (quantity === 1 ? "It is in your cart." : `${quantity} of it are in your cart.`);
  } catch {
    toast.textContent = navigator.onLine ? "That did not work. Nothing was changed: try it again." : "You are offline. Nothing was changed: try it again when you are back.";
  }
  setTimeout(() => { toast.textContent = ""; }, 6000);
});
