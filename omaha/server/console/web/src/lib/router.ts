// Every view has a URL: the path says which, the query its filters and the application.
import { useEffect, useState } from "preact/hooks";
import { withQuery, type Query } from "../api/query";

export interface Place { path: string; query: URLSearchParams; hash: string }

let place: Place = read();
const listeners = new Set<(p: Place) => void>();

function read(): Place {
  return { path: location.pathname, query: new URLSearchParams(location.search), hash: location.hash };
}

function arrive(): void {
  place = read();
  for (const l of [...listeners]) l(place);
}

addEventListener("popstate", arrive);

/** The application that is shown. */
export function currentApp(): string { return place.query.get("app") || "semper"; }

/** A link to a view of the same application. */
export function href(path: string, query: Query = {}): string {
  return withQuery(path, { app: place.query.get("app") ?? undefined, ...query });
}

/** Goes to a view of the console. Replacing leaves no step in the history: for filters while somebody types. */
export function go(to: string, replace = false): void {
  if (to === location.pathname + location.search) return;
  const before = place.path;
  history[replace ? "replaceState" : "pushState"](null, "", to);
  arrive();
  if (place.path !== before) scrollTo(0, 0);
}

/** Changes parts of the query and keeps the rest. */
export function filter(changes: Query, replace = true): void {
  const q = new URLSearchParams(place.query);
  for (const [name, value] of Object.entries(changes)) {
    if (value === undefined || value === "" || value === false) q.delete(name);
    else q.set(name, value === true ? "1" : String(value));
  }
  const text = q.toString();
  go(text ? `${place.path}?${text}` : place.path, replace);
}

/** Links of the console are followed without loading; all others, and clicks with a modifier, are the browser's. */
export function follow(e: MouseEvent): void {
  if (e.defaultPrevented || e.button !== 0 || e.metaKey || e.ctrlKey || e.shiftKey || e.altKey) return;
  const a = e.target instanceof Element ? e.target.closest("a") : null;
  if (!a || a.target || a.hasAttribute("download") || a.origin !== location.origin || !isView(a.pathname)) return;
  if (a.hash && a.pathname === location.pathname && a.search === location.search) return;
  e.preventDefault();
  go(a.pathname + a.search + a.hash);
}

const views = /^\/(machines|releases|rollouts|channels|reboots|people|audit|sign-in)?(\/|$)/;
function isView(path: string): boolean { return path === "/" || views.test(path); }

/** A path from outside that leads to a view of this console, else the overview: a link must not lead anywhere else. */
export function localView(path: string | null): string {
  if (!path || !path.startsWith("/") || path.startsWith("//") || path.includes("\\")) return "/";
  const u = new URL(path, location.origin);
  return u.origin === location.origin && isView(u.pathname) && !u.pathname.startsWith("/sign-in") ? u.pathname + u.search : "/";
}

export function usePlace(): Place {
  const [p, set] = useState(place);
  useEffect(() => {
    listeners.add(set);
    set(place);
    return () => void listeners.delete(set);
  }, []);
  return p;
}
