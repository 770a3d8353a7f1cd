// Go's durations, as the interface writes them ("1h30m0s"), and the shorter ones that people read and write ("1d 6h").

const units: Record<string, number> = { ns: 1e-6, us: 1e-3, "µs": 1e-3, ms: 1, s: 1e3, m: 60e3, h: 3600e3, d: 86400e3, w: 7 * 86400e3 };

/** Milliseconds of a text such as "90m", "1d 6h" or Go's "36h0m0s"; undefined when it is none. */
export function parseDuration(text: string): number | undefined {
  const compact = text.replace(/\s+/g, "");
  if (compact === "" || compact === "0") return compact === "0" ? 0 : undefined;
  if (!/^(\d+(\.\d+)?(ns|us|µs|ms|s|m|h|d|w))+$/.test(compact)) return undefined;
  let sum = 0;
  for (const [, n, , unit] of compact.matchAll(/(\d+(\.\d+)?)(ns|us|µs|ms|s|m|h|d|w)/g)) sum += Number(n) * (units[unit ?? ""] ?? 0);
  return sum;
}

/** The text that Go reads. */
export function goDuration(ms: number): string {
  const s = Math.round(ms / 1000);
  return `${Math.floor(s / 3600)}h${Math.floor(s / 60) % 60}m${s % 60}s`;
}

/** For people, in at most two units: "1 d 6 h", "45 min". */
export function words(ms: number): string {
  if (ms < 1000) return ms <= 0 ? "0\u00a0s" : "less than 1\u00a0s";
  let rest = Math.round(ms / 1000);
  const out: string[] = [];
  for (const [unit, size] of [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]] as const) {
    const n = Math.floor(rest / size);
    rest -= n * size;
    if (n > 0) out.push(`${n}\u00a0${unit}`);
    else if (out.length > 0) break;
    if (out.length === 2) break;
  }
  return out.join("\u00a0");
}

/** A Go duration for people; what cannot be read stays as it is. */
export function durationWords(text: string | undefined): string {
  const ms = text ? parseDuration(text) : 0;
  return ms === undefined ? (text ?? "") : words(ms);
}
