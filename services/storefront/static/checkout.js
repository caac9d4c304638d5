// Sends the form so that a lost connection leaves the shopper where they were, with the same key: one order, whatever
// happens on the way. Without this module the browser sends it, and the key makes the same promise.
const status = () => document.getElementById("checkout-status");
let sending = false;

async function send(form) {
  if (sending) return;
  sending = true;
  const button = document.getElementById("buy");
  button.setAttribute("aria-disabled", "true");
  status().textContent = "Placing your order …";
  try {
    const answer = await fetch(form.action, { method: "POST", body: new URLSearchParams(new FormData(form)) });
    if (answer.redirected) {
      location.assign(answer.url);
      return;
    }
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const main = document.getElementById("main");
    main.replaceWith(document.adoptNode(page.getElementById("main")));
    document.title = page.title;
    scrollTo(0, 0);
    document.querySelector("[data-focus]")?.focus();
  } catch {
    status().textContent = "There is no connection, so it is not known yet whether your order is placed. Nothing you entered is lost.";
    button.textContent = "Send it again";
    button.removeAttribute("aria-disabled");
    button.focus();
  }
  sending = false;
}

document.addEventListener("submit", (event) => {
  if (event.target.id !== "checkout") return;
  event.preventDefault();
  send(event.target);
});
addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); }); // by the way back: a new look at the cart
