// The plan of a rollout as a form has it, in texts, and as the server takes it.
import type { Plan, Wave } from "../api/types";
import { goDuration, parseDuration } from "./duration";

export interface WaveText { after: string; percent: string }
export type Spread = "ramp" | "waves" | "all";

export interface PlanForm {
  version: string; channel: string; arch: string;
  canaryGroup: string; canaryNeed: string; canaryHealthy: string; canaryFailures: string;
  spread: Spread; rampOver: string; rampStart: string; waves: WaveText[];
  atOnce: string; perPeriod: string; period: string;
  windows: string; zone: string;
  haltFailures: string; haltPercent: string; haltSample: string; silentAfter: string;
}

/** A plan that is careful without being told: a day's ramp that stops at 2 % failures. */
export const careful: PlanForm = {
  version: "", channel: "", arch: "amd64",
  canaryGroup: "", canaryNeed: "", canaryHealthy: "1h", canaryFailures: "",
  spread: "ramp", rampOver: "24h", rampStart: "", waves: [{ after: "0h", percent: "5" }, { after: "6h", percent: "25" }, { after: "24h", percent: "100" }],
  atOnce: "", perPeriod: "", period: "1h",
  windows: "", zone: "",
  haltFailures: "", haltPercent: "2", haltSample: "", silentAfter: "",
};

const number = (text: string): number | undefined => (text === "" ? undefined : Number(text));
const duration = (text: string): string | undefined => {
  const ms = parseDuration(text);
  return ms === undefined || ms === 0 ? undefined : goDuration(ms);
};

/** Drops what is undefined, zero or empty; undefined when nothing is left. */
function some<T extends object>(o: T): T | undefined {
  const kept = Object.entries(o).filter(([, v]) => v !== undefined && v !== "" && v !== 0 && !(Array.isArray(v) && v.length === 0));
  return kept.length > 0 ? (Object.fromEntries(kept) as T) : undefined;
}

export function planOf(f: PlanForm): Plan {
  const canary = f.canaryGroup ? { group: f.canaryGroup, need: number(f.canaryNeed), healthy: duration(f.canaryHealthy), failures: number(f.canaryFailures) } : {};
  const waves: Wave[] = f.spread === "waves" ? f.waves.map((w) => ({ after: duration(w.after) ?? "0s", percent: Number(w.percent) })) : [];
  const plan = {
    canary: some(canary), waves,
    ramp: f.spread === "ramp" ? some({ start: number(f.rampStart), over: duration(f.rampOver) }) : undefined,
    limits: some({ at_once: number(f.atOnce), per_period: number(f.perPeriod), period: f.perPeriod ? duration(f.period) : undefined }),
    windows: f.windows.trim() ? some({ times: f.windows.split("\n").map((l) => l.trim()).filter(Boolean), zone: f.zone.trim() }) : undefined,
    halt: some({ failures: number(f.haltFailures), percent: number(f.haltPercent), sample: number(f.haltSample), silent_after: duration(f.silentAfter) }),
  };
  return (some(plan) ?? {}) as Plan;
}

/** What a field has that cannot be read; the server says what makes no sense together. */
export function unreadable(f: PlanForm): boolean {
  const numbers = [f.canaryNeed, f.canaryFailures, f.rampStart, f.atOnce, f.perPeriod, f.haltFailures, f.haltPercent, f.haltSample, ...(f.spread === "waves" ? f.waves.map((w) => w.percent) : [])];
  const durations = [f.canaryHealthy, f.silentAfter, ...(f.spread === "ramp" ? [f.rampOver] : []), ...(f.spread === "waves" ? f.waves.map((w) => w.after) : []), ...(f.perPeriod ? [f.period] : [])];
  return numbers.some((n) => n !== "" && !(Number(n) >= 0)) || durations.some((d) => d !== "" && parseDuration(d) === undefined);
}
