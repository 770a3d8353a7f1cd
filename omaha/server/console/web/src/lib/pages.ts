// A list that is read in pages tells where the next one begins, and not the one before: the way that somebody came is kept, for as long as the tab is open.

const name = "semper-pages";
const most = 300; // steps

function read(): [string, string][] {
  try {
    const kept = JSON.parse(sessionStorage.getItem(name) ?? "[]") as unknown;
    return Array.isArray(kept) ? (kept as [string, string][]) : [];
  } catch {
    return [];
  }
}

const way = new Map(read());

/** Notes that the page at one place of a list is followed by the one at another. */
export function passed(list: string, at: string, next: string): void {
  const key = `${list} ${next}`;
  if (way.get(key) === at) return;
  way.delete(key);
  way.set(key, at);
  sessionStorage.setItem(name, JSON.stringify([...way].slice(-most)));
}

/** Where the page before begins; undefined where nobody came from there. */
export function before(list: string, at: string): string | undefined {
  return way.get(`${list} ${at}`);
}
