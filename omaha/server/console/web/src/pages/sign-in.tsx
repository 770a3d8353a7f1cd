// Signing in: by the organisation's provider, by a token, or once by the link that the server printed at its first start.
import { useEffect, useState } from "preact/hooks";
import * as api from "../api/calls";
import { Problem } from "../api/client";
import { Text } from "../components/fields";
import { Icon, Mark } from "../components/icons";
import { useLoad } from "../lib/load";
import { go, localView, type Place } from "../lib/router";
import { begin } from "../lib/session";

export function SignInPage({ place }: { place: Place }) {
  const options = useLoad("options", api.options);
  const [token, setToken] = useState("");
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState<Problem>();
  const next = localView(place.query.get("next"));
  const oidc = options.data?.oidc;
  const refused = place.query.get("error");

  useEffect(() => { document.title = "Sign in · Semper"; }, []);

  const enter = async (by: () => Promise<unknown>) => {
    setBusy(true);
    setProblem(undefined);
    try {
      await by();
      await begin();
      go(next, true);
    } catch (e) {
      setProblem(e instanceof Problem ? e : new Problem(0, "Failed", String(e), "internal"));
    } finally {
      setBusy(false);
    }
  };

  // The secret is in the fragment, which browsers send to nobody; it leaves the address bar and the history at once.
  useEffect(() => {
    const secret = location.hash.slice(1);
    if (!secret) return;
    history.replaceState(null, "", location.pathname + location.search);
    void enter(() => api.signInByLink(secret));
  }, []);

  return (
    <div class="sign-in-box">
      <div class="sign-in-brand"><Mark /><h1 tabIndex={-1}>Sign in to Semper</h1></div>
      {(problem || refused) && (
        <div class="trouble" role="alert"><Icon name="alert" /><div>
          <strong>{problem?.status === 429 ? "Too many tries" : "Not signed in"}</strong>
          <p>{problem ? problem.message : refused}</p>
        </div></div>
      )}
      {oidc && <a class="button primary block" href={`/auth/oidc/start?next=${encodeURIComponent(next)}`}>Sign in with {oidc.name}</a>}
      {oidc && <p class="or"><span>or</span></p>}
      <form onSubmit={(e) => { e.preventDefault(); if (token.trim() && !busy) void enter(() => api.signInByToken(token.trim())); }}>
        <Text label="API token" type="password" mono value={token} set={setToken} placeholder="semper_…" required hint={<>Made with <code>semper-server token new --role ROLE --data DIR</code> or in the console, under People.</>} />
        <button type="submit" class={`button block ${oidc ? "" : "primary"}`} disabled={busy || !token.trim()}>{busy ? "Signing in…" : "Sign in with a token"}</button>
      </form>
      {options.data?.link && <p class="sign-in-note">Just installed? The server printed a link at its start that makes you its first administrator. It works once.</p>}
    </div>
  );
}
