// Answers that were asked for before the console was there. Two scripts share them: first.ts asks, and the console takes each once, by its address.

/** An answer, read to its end. */
export interface Heard { ok: boolean; status: number; statusText: string; etag: string; text: string }

const keptFor = 10_000; // ms since the page was asked for: what is older is asked for again

declare global {
  var semperEarly: Map<string, Promise<Heard>> | undefined;
}

export async function hear(url: string, init: RequestInit): Promise<Heard> {
  const r = await fetch(url, { credentials: "same-origin", cache: "no-store", redirect: "error", ...init });
  return { ok: r.ok, status: r.status, statusText: r.statusText, etag: r.headers.get("ETag") ?? "", text: await r.text() };
}

/** Asks for something that will be taken. */
export function ask(url: string): Promise<Heard> {
  const answer = hear(url, { headers: { Accept: "application/json" } });
  answer.catch(() => undefined); // whoever takes it hears of it
  (globalThis.semperEarly ??= new Map()).set(url, answer);
  return answer;
}

/** The answer of an address, if it was asked for. The next one who wants it asks anew. */
export function take(url: string): Promise<Heard> | undefined {
  const answer = globalThis.semperEarly?.get(url);
  globalThis.semperEarly?.delete(url);
  return performance.now() < keptFor ? answer : undefined;
}

/** Forgets the answers: another person may be signing in. */
export function drop(): void { globalThis.semperEarly?.clear(); }

/** Waits until the answers are there, or for so many milliseconds. */
export function settled(most: number): Promise<unknown> {
  return Promise.race([Promise.allSettled(globalThis.semperEarly?.values() ?? []), new Promise((done) => setTimeout(done, most))]);
}
