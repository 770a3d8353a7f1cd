// Who looks, and what they may do. The server refuses what they may not in any case; the console does not offer it.
import { useLayoutEffect, useState } from "preact/hooks";
import * as api from "../api/calls";
import { onSignedOut, setCSRF } from "../api/client";
import type { Me, Role } from "../api/types";
import { startLive, stopLive } from "./live";
import { forget } from "./load";
import { go } from "./router";

let me: Me | undefined;
const listeners = new Set<() => void>();

const covers: Record<Role, Role[]> = {
  viewer: ["viewer"], operator: ["viewer", "operator"], publisher: ["viewer", "publisher"], admin: ["viewer", "operator", "publisher", "admin"],
};

export function may(need: Role): boolean { return me !== undefined && (covers[me.role] ?? []).includes(need); }

function become(m: Me | undefined): void {
  me = m;
  setCSRF(m?.csrf ?? "");
  for (const l of [...listeners]) l();
}

/** Asks who is signed in. */
export async function begin(): Promise<void> {
  const { data } = await api.me();
  become(data);
  startLive();
}

export async function signOut(): Promise<void> {
  await api.signOut().catch(() => undefined); // a session that is over already is as good
  leave("/sign-in");
}

function leave(to: string): void {
  become(undefined);
  forget();
  stopLive();
  go(to);
}

onSignedOut(() => {
  if (location.pathname === "/sign-in") return;
  const back = location.pathname + location.search;
  leave(back === "/" ? "/sign-in" : `/sign-in?next=${encodeURIComponent(back)}`);
});

export function useMe(): Me | undefined {
  const [, draw] = useState(0);
  useLayoutEffect(() => { // the answer may be there before the first paint
    const l = () => draw((n) => n + 1);
    listeners.add(l);
    return () => void listeners.delete(l);
  }, []);
  return me;
}
