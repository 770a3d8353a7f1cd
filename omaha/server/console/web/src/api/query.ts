// Addresses of requests.

export type Query = Record<string, string | number | boolean | undefined>;

export function withQuery(path: string, query: Query = {}): string {
  const q = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    if (value !== undefined && value !== "" && value !== false) q.set(name, value === true ? "1" : String(value));
  }
  const text = q.toString();
  return text ? `${path}?${text}` : path;
}
