// What differs between two states of a thing, field by field.

export interface Difference { name: string; before: string; after: string }

function parsed(v: unknown): unknown {
  if (typeof v !== "string") return v;
  try { return JSON.parse(v) as unknown; } catch { return v; }
}

function flat(v: unknown, name: string, out: Map<string, string>): void {
  if (v === null || v === undefined || v === "") return;
  if (typeof v === "object") {
    for (const [k, inner] of Object.entries(v)) flat(inner, name ? `${name}.${k}` : k, out);
    return;
  }
  out.set(name, String(v));
}

/** Both may be JSON in a text, a value, or missing. */
export function differences(before: unknown, after: unknown): Difference[] {
  const a = new Map<string, string>(), b = new Map<string, string>();
  flat(parsed(before), "", a);
  flat(parsed(after), "", b);
  const names = new Set([...a.keys(), ...b.keys()]);
  return [...names].filter((n) => a.get(n) !== b.get(n)).map((name) => ({ name, before: a.get(name) ?? "none", after: b.get(name) ?? "none" }));
}
