// Renews the access token before it runs out, in one tab at a time: a refresh token that is sent twice ends the sign-in.
// The tokens themselves are in cookies that no script can read; this one says only until when.
function secondsLeft() {
  const found = /(?:^|; )souk_until=(\d+)/.exec(document.cookie);
  return found ? Number(found[1]) - Date.now() / 1000 : null;
}

// True when somebody is signed in and the token is good, by this or another tab.
export async function renew() {
  return navigator.locks.request("souk-session", async () => {
    const left = secondsLeft();
    if (left === null) return false;
    if (left > 60) return true;
    const answer = await fetch("/session/renew", { method: "POST", body: new URLSearchParams({ quiet: "yes" }) });
    return answer.ok && (secondsLeft() ?? 0) > 0;
  });
}

export function renewInTime() {
  const left = secondsLeft();
  if (left === null) return;
  const soon = async () => {
    if (document.visibilityState === "visible") {
      try { await renew(); } catch { /* no connection: the next page renews it */ }
    }
    renewInTime();
  };
  setTimeout(soon, Math.max(5, left - 45) * 1000);
}
