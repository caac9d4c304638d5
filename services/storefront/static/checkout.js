// Sends the form so that a lost connection leaves the shopper where they were, with the same key: one order, whatever
// happens on the way. What was sent is kept until there is an answer, so a reload asks for the same order too. Without this
// module the browser sends it, and the key makes the same promise.
const SENT = "souk-checkout";
const status = () => document.getElementById("checkout-status");
let sending = false;

const keep = (shopper, fields) => { try { sessionStorage.setItem(SENT, JSON.stringify([shopper, [...fields]])); } catch { /* full or forbidden: then a reload forgets it */ } };
const forget = () => sessionStorage.removeItem(SENT);
// What this form's shopper sent; what somebody sent who was here before is forgotten.
function kept(form) {
  const [shopper, fields] = JSON.parse(sessionStorage.getItem(SENT) ?? "[]");
  if (shopper === form.dataset.shopper) return fields;
  forget();
}

function again(text) {
  const button = document.getElementById("buy");
  status().textContent = text;
  button.textContent = "Send it again";
  button.removeAttribute("aria-disabled");
  button.disabled = false;
  button.focus();
}

async function send(form) {
  if (sending) return;
  sending = true;
  document.getElementById("buy").setAttribute("aria-disabled", "true");
  status().textContent = "Placing your order …";
  const fields = new URLSearchParams(new FormData(form));
  if (kept(form)) fields.set("sent", "yes"); // and its answer has not come
  keep(form.dataset.shopper, fields);
  try {
    const answer = await fetch(form.action, { method: "POST", body: fields });
    const known = answer.status < 500;
    if (known) forget();
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
    again("There is no connection, so it is not known yet whether your order is placed. Nothing you entered is lost.");
  }
  sending = false;
}

// After a reload in the middle: the same form as was sent, key and all.
function restore(form) {
  const sent = kept(form);
  if (!sent) return;
  for (const box of form.querySelectorAll("[type=checkbox]")) box.checked = false;
  for (const [name, value] of sent) {
    const fields = [...form.querySelectorAll(`[name="${CSS.escape(name)}"]`)];
    for (const field of fields) {
      if (["radio", "checkbox"].includes(field.type)) field.checked = field.value === value;
      else field.value = value;
    }
  }
  again("This order was sent, and its answer has not come. Send it again: it is one order.");
}

document.addEventListener("submit", (event) => {
  if (event.target.id !== "checkout") return;
  event.preventDefault();
  send(event.target);
});
addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); }); // by the way back: a new look at the cart
restore(document.getElementById("checkout"));
