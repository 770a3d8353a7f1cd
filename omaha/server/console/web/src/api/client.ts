// Requests to the server. Everything the console does goes through here: the session's CSRF token, lost updates, and errors that a person can read.
import { hear, take, type Heard } from "./early";
import { withQuery, type Query } from "./query";

/** An answer that is no success, as the server explains it. */
export class Problem extends Error {
  constructor(readonly status: number, readonly title: string, detail: string, readonly kind: string) {
    super(detail || title);
    this.name = "Problem";
  }
}

/** What was read, and its version for If-Match. */
export interface Answer<T> { data: T; etag: string }

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

export async function call<T>(method: string, path: string, c: Call = {}): Promise<Answer<T>> {
  const headers: Record<string, string> = { Accept: "application/json" };
  if (c.body !== undefined) headers["Content-Type"] = "application/json";
  if (method !== "GET" && csrf) headers["Semper-CSRF"] = csrf;
  if (c.etag) headers["If-Match"] = c.etag;
  if (method === "POST") headers["Idempotency-Key"] = c.key ?? newKey();
  const url = withQuery(path, c.query);
  let heard: Heard;
  try {
    heard = await (method === "GET" && take(url) || hear(url, {
      method, headers,
      ...(c.body === undefined ? {} : { body: JSON.stringify(c.body) }),
      ...(c.signal ? { signal: c.signal } : {}),
    }));
  } catch (e) {
    if (e instanceof DOMException && e.name === "AbortError") throw e;
    throw new Problem(0, "No answer", "The server cannot be reached.", "network");
  }
  if (!heard.ok) throw problemOf(heard, path);
  try {
    return { data: (heard.text ? JSON.parse(heard.text) : {}) as T, etag: heard.etag };
  } catch {
    throw new Problem(heard.status, "Unreadable", "The answer is not what the console expects. Is there a proxy in between?", "network");
  }
}

function problemOf({ status, statusText, text }: Heard, path: string): Problem {
  if (status === 401 && path.startsWith("/api/")) signedOut();
  try {
    const p = JSON.parse(text) as { title?: string; detail?: string; kind?: string };
    return new Problem(status, p.title ?? statusText, p.detail ?? "", p.kind ?? "");
  } catch {
    return new Problem(status, statusText || `Status ${status}`, text.length < 300 ? text.trim() : "", "");
  }
}

/** A new Idempotency-Key. randomUUID is there in secure contexts alone, and a server in a lab may speak plain HTTP. */
export function newKey(): string {
  if (typeof crypto.randomUUID === "function") return crypto.randomUUID();
  const b = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(b, (n) => n.toString(16).padStart(2, "0")).join("");
}

export const get = <T>(path: string, query?: Query, signal?: AbortSignal) => call<T>("GET", path, { query, signal });
