// What each view asks for first, by its address. first.ts asks for it ahead, and the view finds the answers under the same addresses: what is not the same here and there is asked for twice,
// which console-tests looks for.
import { withQuery, type Query } from "../api/query";

export const v1 = "/api/v1";

/** The application in a request's query; none for the usual one. */
export const appQuery = (name: string | null): Query => ({ app: name && name !== "semper" ? name : undefined });

export const machineFilters = ["text", "version", "channel", "group", "state", "platform", "silent_for", "seen_within", "silent", "retired"] as const;
export type MachineFilter = (typeof machineFilters)[number];
const perPage = 100;

export function machineQuery(q: URLSearchParams): Record<MachineFilter, string> {
  return Object.fromEntries(machineFilters.map((n) => [n, q.get(n) ?? ""])) as Record<MachineFilter, string>;
}

/** One page of the machines that pass the filters of a view's address. */
export const machinesQuery = (q: URLSearchParams): Query => ({ ...machineQuery(q), after: q.get("after") ?? "", limit: perPage });

export const auditQuery = (q: URLSearchParams): Query => ({ text: q.get("text") ?? "", before: q.get("before") ?? "", limit: perPage });

const hours: Record<string, number> = { "24h": 24, "7d": 168, "30d": 720, "90d": 2160 };
export const usualRange = "7d";

/** The versions over time that a view's address wants, from a whole minute on, so that who asks soon after asks for the same. */
export function versionsQuery(q: URLSearchParams): { channel: string; arch: string; from: string } {
  const since = Date.now() - (hours[q.get("range") ?? usualRange] ?? 168) * 3600e3;
  return { channel: q.get("channel") ?? "", arch: q.get("arch") ?? "", from: new Date(Math.floor(since / 60e3) * 60e3).toISOString() };
}

type Ask = (url: string) => Promise<{ ok: boolean; text: string }>;

/** Asks for what the view of an address shows. */
export function firstAsks(path: string, q: URLSearchParams, ask: Ask): void {
  const app = appQuery(q.get("app"));
  const get = (rest: string, query: Query = {}) => ask(withQuery(v1 + rest, query));
  const ofApp = (rest: string, query: Query = {}) => void get(rest, { ...app, ...query });
  const [, kind = "", id = "", version = ""] = path.split("/");
  if (kind === "sign-in") return;
  void get("/me");
  void get("/applications");
  switch (kind) {
    case "":
      void get("/overview", app).then((a) => { // a rollout's line is read by the rollout's number
        if (!a.ok) return;
        const { rollouts } = JSON.parse(a.text) as { rollouts: { id: number; state: string }[] | null };
        for (const r of rollouts ?? []) if (!["draft", "done", "aborted"].includes(r.state)) void get(`/rollouts/${r.id}/progress`);
      }).catch(() => undefined); // the view says what is wrong
      ofApp("/charts/versions", versionsQuery(q));
      return;
    case "machines":
      if (id) { ofApp(`/machines/${id}`); return; }
      ofApp("/machines", machinesQuery(q));
      ofApp("/channels");
      ofApp("/groups");
      ofApp("/releases");
      return;
    case "releases":
      if (id) ofApp(`/releases/${version}`, { arch: id });
      ofApp("/channels");
      ofApp("/releases");
      return;
    case "rollouts":
      if (id === "new") {
        ofApp("/releases");
        ofApp("/channels");
        ofApp("/groups");
      } else if (id) {
        void get(`/rollouts/${id}`);
      } else {
        ofApp("/rollouts");
      }
      return;
    case "channels":
      ofApp("/channels");
      ofApp("/releases");
      ofApp("/groups");
      return;
    case "reboots": void get("/reboots"); return;
    case "audit": void get("/audit", auditQuery(q)); return;
  }
}
