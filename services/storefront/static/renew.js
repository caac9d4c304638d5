// The page between: goes on by itself, and stays where nobody answers.
import { renew } from "./session.js";

const form = document.getElementById("renew");
try {
  await renew(form.dataset.ranOut);
  location.replace(new FormData(form).get("next"));
} catch {
  document.getElementById("renew-status").textContent = "The shop does not know yet who you are: a part of it does not answer at the moment.";
}
