// Requests to the server. Everything the console does goes through here: the session's CSRF token, lost updates, and errors that a person can read.

/** An answer that is no success, as the server explains it. */
export class Problem extends Error {
  constructor(readonly status: number, readonly title: string, detail: string, readonly kind: string) {
    super(detail || title);
    this.name = "Problem";
  }
}

/** What was read, and its version for If-Match. */
export interface Answer<T> { data: T; etag: string }

export type Query = Record<string, string | number | boolean | undefined>;

export interface Call {
  query?: Query | undefined;
  body?: unknown;
  etag?: string | undefined;
  key?: string | undefined; // Idempotency-Key: the same one for every try of the same act
  signal?: AbortSignal | undefined;
}

let csrf = "";
/** The token of the session, from /api/v1/me. */
export function setCSRF(token: string): void { csrf = token; }

let signedOut: () => void = () => undefined;
/** What to do when the server knows nobody behind a request any more. */
export function onSignedOut(then: () => void): void { signedOut = then; }

export function withQuery(path: string, query: Query = {}): string {
  const q = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    if (value !== undefined && value !== "" && value !== false) q.set(name, value === true ? "1" : String(value));
  }
  const text = q.toString();
  return text ? `${path}?${text}` : path;
}

export async function call<T>(method: string, path: string, c: Call = {}): Promise<Answer<T>> {
  const headers: Record<string, string> = { Accept: "application/json" };
  if (c.body !== undefined) headers["Content-Type"] = "application/json";
  if (method !== "GET" && csrf) headers["Semper-CSRF"] = csrf;
  if (c.etag) headers["If-Match"] = c.etag;
  if (method === "POST") headers["Idempotency-Key"] = c.key ?? newKey();
  let response: Response;
  try {
    response = await fetch(withQuery(path, c.query), {
      method, headers, credentials: "same-origin", cache: "no-store", redirect: "error",
      ...(c.body === undefined ? {} : { body: JSON.stringify(c.body) }),
      ...(c.signal ? { signal: c.signal } : {}),
    });
  } catch (e) {
    if (e instanceof DOMException && e.name === "AbortError") throw e;
    throw new Problem(0, "No answer", "The server cannot be reached.", "network");
  }
  if (!response.ok) throw await problemOf(response, path);
  const text = await response.text();
  try {
    return { data: (text ? JSON.parse(text) : {}) as T, etag: response.headers.get("ETag") ?? "" };
  } catch {
    throw new Problem(response.status, "Unreadable", "The answer is not what the console expects. Is there a proxy in between?", "network");
  }
}

async function problemOf(response: Response, path: string): Promise<Problem> {
  if (response.status === 401 && path.startsWith("/api/")) signedOut();
  const text = await response.text().catch(() => "");
  try {
    const p = JSON.parse(text) as { title?: string; detail?: string; kind?: string };
    return new Problem(response.status, p.title ?? response.statusText, p.detail ?? "", p.kind ?? "");
  } catch {
    return new Problem(response.status, response.statusText || `Status ${response.status}`, text.length < 300 ? text.trim() : "", "");
  }
}

/** A new Idempotency-Key. randomUUID is there in secure contexts alone, and a server in a lab may speak plain HTTP. */
export function newKey(): string {
  if (typeof crypto.randomUUID === "function") return crypto.randomUUID();
  const b = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(b, (n) => n.toString(16).padStart(2, "0")).join("");
}

export const get = <T>(path: string, query?: Query, signal?: AbortSignal) => call<T>("GET", path, { query, signal });
