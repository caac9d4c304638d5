// Renews the access token before it runs out, in one tab at a time: a refresh token that is sent twice ends the sign-in.
// The tokens themselves are in cookies that no script can read; this one says only until when, by the server's clock.
const EARLY_S = 60;
const SOONEST_S = 5;
const AGAIN_S = 300; // a browser whose clock is ahead would otherwise find every new token ended, and never stop

function until() {
  return /(?:^|; )souk_until=(\d+)/.exec(document.cookie)?.[1] ?? "";
}

// The lock that all tabs share; a browser has none for a page that came by plain HTTP from another machine.
function alone(work) {
  return navigator.locks ? navigator.locks.request("souk-session", work) : work();
}

// Renews the token, unless another tab has meanwhile: then it is no longer the one that `ranOut`, or good for a while.
// Afterwards whoever was signed in is so, or is known to be nobody; throws where no answer comes.
export async function renew(ranOut) {
  await alone(async () => {
    const known = until();
    const good = ranOut === undefined ? !known || known - Date.now() / 1000 > EARLY_S : known !== ranOut;
    if (good) return;
    const answer = await fetch("/session/renew", { method: "POST", body: new URLSearchParams({ quiet: "yes" }) });
    if (!answer.ok) throw new Error(String(answer.status));
  });
}

export function renewInTime(soonest = SOONEST_S) {
  const known = until();
  if (!known) return;
  const soon = async () => {
    if (document.visibilityState === "visible") {
      try { await renew(); } catch { /* nobody answers: the next page renews it */ }
    }
    renewInTime(AGAIN_S);
  };
  setTimeout(soon, Math.max(soonest, known - Date.now() / 1000 - EARLY_S + 15) * 1000);
}
