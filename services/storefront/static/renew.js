// The page between: goes on by itself.
import { renew } from "./session.js";

const next = new FormData(document.getElementById("renew")).get("next");
try {
  await renew();
  location.replace(next);
} catch { /* no connection: the button stays */ }
