// News from the server: one stream of topics that changed. While it is lost, views are told every 30 seconds that anything may have changed.
import { useEffect, useState } from "preact/hooks";

export type Topic = "rollouts" | "machines" | "releases" | "channels" | "audit" | "reboots" | "tokens";
export type Link = "connecting" | "live" | "polling";

const pollEvery = 30_000;
const firstRetry = 2_000;

let source: EventSource | undefined;
let link: Link = "connecting";
let poll: ReturnType<typeof setInterval> | undefined;
let retry: ReturnType<typeof setTimeout> | undefined;
let wait = firstRetry;
const hearers = new Set<(topics: Set<string> | "all") => void>();
const watchers = new Set<(l: Link) => void>();

function become(l: Link): void {
  if (l === link) return;
  const lost = link === "polling";
  link = l;
  clearInterval(poll);
  if (l === "polling") poll = setInterval(() => tell("all"), pollEvery);
  if (l === "live" && lost) tell("all"); // what happened in between
  for (const w of [...watchers]) w(l);
}

function tell(topics: Set<string> | "all"): void {
  if (document.hidden && topics === "all") return;
  for (const h of [...hearers]) h(topics);
}

function connect(): void {
  source?.close();
  const s = new EventSource("/api/v1/feed");
  source = s;
  s.onopen = () => { wait = firstRetry; become("live"); };
  s.addEventListener("changed", (e) => {
    try {
      const { topics } = JSON.parse((e as MessageEvent<string>).data) as { topics: string[] };
      tell(new Set(topics));
    } catch { /* an event that cannot be read tells nothing */ }
  });
  s.onerror = () => {
    become("polling");
    if (s.readyState !== EventSource.CLOSED) return; // the browser tries again by itself
    clearTimeout(retry);
    retry = setTimeout(connect, wait);
    wait = Math.min(wait * 2, pollEvery);
  };
}

export function startLive(): void { if (!source) connect(); }

export function stopLive(): void {
  source?.close();
  source = undefined;
  clearTimeout(retry);
  clearInterval(poll);
  link = "connecting";
}

addEventListener("pagehide", () => source?.close());
addEventListener("pageshow", (e) => { if (e.persisted && source) connect(); });
document.addEventListener("visibilitychange", () => { if (!document.hidden && link === "polling") tell("all"); });

/** Calls back when one of the topics changed. */
export function onChange(topics: readonly Topic[], then: () => void): () => void {
  const hear = (changed: Set<string> | "all") => {
    if (changed === "all" || topics.some((t) => changed.has(t))) then();
  };
  hearers.add(hear);
  return () => void hearers.delete(hear);
}

export function useLink(): Link {
  const [l, set] = useState(link);
  useEffect(() => {
    watchers.add(set);
    set(link);
    return () => void watchers.delete(set);
  }, []);
  return l;
}
