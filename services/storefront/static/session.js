// Renews the access token before it runs out, in one tab at a time: a refresh token that is sent twice ends the sign-in.
// The tokens themselves are in cookies that no script can read; this one says only until when, by the server's clock.
const EARLY_S = 60;
const SOONEST_S = 5;
const AGAIN_S = 300; // a browser whose clock is ahead would otherwise find every new token ended, and never stop

function until() {
  return /(?:^|; )souk_until=(\d+)/.exec(document.cookie)?.[1] ?? null;
}

// Renews the token, unless another tab has meanwhile: then it is no longer the one that `ranOut`, or good for a while.
// Whether whoever was signed in is so still; throws where nobody answers, and nothing is known.
export async function renew(ranOut) {
  return navigator.locks.request("souk-session", async () => {
    const known = until();
    if (known === null) return false;
    if (ranOut ? known !== ranOut : known - Date.now() / 1000 > EARLY_S) return true;
    const answer = await fetch("/session/renew", { method: "POST", body: new URLSearchParams({ quiet: "yes" }) });
    if (!answer.ok) throw new Error(String(answer.status));
    return until() !== null;
  });
}

export function renewInTime(soonest = SOONEST_S) {
  const known = until();
  if (known === null) return;
  const soon = async () => {
    if (document.visibilityState === "visible") {
      try { await renew(); } catch { /* nobody answers: the next page renews it */ }
    }
    renewInTime(AGAIN_S);
  };
  setTimeout(soon, Math.max(soonest, known - Date.now() / 1000 - EARLY_S + 15) * 1000);
}
