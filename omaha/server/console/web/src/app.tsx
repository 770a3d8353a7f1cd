// The frame around every view: navigation, who is signed in, dialogs, and which view a URL stands for.
import type { ComponentChild } from "preact";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { Problem } from "./api/client";
import { Asking } from "./components/ask";
import { Help } from "./components/help";
import { Nav } from "./components/nav";
import { Trouble } from "./components/page";
import { Toasts } from "./components/toast";
import { useKeys } from "./lib/keys";
import { href, usePlace, type Place } from "./lib/router";
import { begin, useMe } from "./lib/session";
import { AuditPage } from "./pages/audit";
import { ChannelsPage } from "./pages/channels";
import { MachinePage } from "./pages/machine";
import { MachinesPage } from "./pages/machines";
import { NewRolloutPage } from "./pages/new-rollout";
import { Missing } from "./pages/missing";
import { OverviewPage } from "./pages/overview";
import { PeoplePage } from "./pages/people";
import { RebootsPage } from "./pages/reboots";
import { ReleasePage } from "./pages/release";
import { ReleasesPage } from "./pages/releases";
import { RolloutPage } from "./pages/rollout";
import { RolloutsPage } from "./pages/rollouts";
import { SignInPage } from "./pages/sign-in";

const views: [RegExp, (p: Place, m: string[]) => ComponentChild][] = [
  [/^\/$/, () => <OverviewPage />],
  [/^\/machines$/, (p) => <MachinesPage place={p} />],
  [/^\/machines\/([^/]+)$/, (_, m) => <MachinePage key={m[0]} id={m[0]!} />],
  [/^\/releases$/, (p) => <ReleasesPage place={p} />],
  [/^\/releases\/([^/]+)\/([^/]+)$/, (p, m) => <ReleasePage key={m.join("/")} arch={m[0]!} version={m[1]!} place={p} />],
  [/^\/rollouts$/, (p) => <RolloutsPage place={p} />],
  [/^\/rollouts\/new$/, (p) => <NewRolloutPage place={p} />],
  [/^\/rollouts\/(\d+)$/, (p, m) => <RolloutPage key={m[0]} id={m[0]!} place={p} />],
  [/^\/channels$/, (p) => <ChannelsPage place={p} />],
  [/^\/reboots$/, () => <RebootsPage />],
  [/^\/people$/, () => <PeoplePage />],
  [/^\/audit$/, (p) => <AuditPage place={p} />],
];

function view(p: Place): ComponentChild {
  for (const [pattern, make] of views) {
    const m = pattern.exec(p.path);
    if (!m) continue;
    try {
      return make(p, m.slice(1).map(decodeURIComponent));
    } catch {
      break; // a path that is no UTF-8
    }
  }
  return <Missing />;
}

export function App() {
  const place = usePlace();
  const me = useMe();
  const signingIn = place.path === "/sign-in";
  const [problem, setProblem] = useState<Problem>();
  const main = useRef<HTMLElement>(null);
  const first = useRef(true);
  useKeys(!signingIn);

  const ask = () => {
    setProblem(undefined);
    begin().catch((e: unknown) => {
      if (e instanceof Problem && e.status !== 401) setProblem(e);
    });
  };
  useLayoutEffect(() => { if (!signingIn && !me) ask(); }, [signingIn]);

  // Where a link leads, keyboard and screen reader go too.
  useEffect(() => {
    if (first.current) { first.current = false; return; }
    main.current?.querySelector<HTMLElement>("h1")?.focus({ preventScroll: true });
  }, [place.path]);

  if (signingIn) {
    return <main id="main" ref={main} class="sign-in"><SignInPage place={place} /><Toasts /></main>;
  }
  return (
    <>
      <a class="skip" href="#main" onClick={(e) => { e.preventDefault(); main.current?.querySelector<HTMLElement>("h1")?.focus(); }}>Skip to the content</a>
      <Nav path={place.path} me={me} />
      <main id="main" ref={main} class="main" key={href("")}>
        {problem && <Trouble problem={problem} retry={ask} />}
        {view(place)}
      </main>
      <Asking />
      <Help />
      <Toasts />
    </>
  );
}
