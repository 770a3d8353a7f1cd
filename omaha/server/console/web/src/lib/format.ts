// Numbers, sizes and times as people read them. One language for all, since the console's words are in it; the zone is the viewer's.
// They are put together here: the first object of Intl in a page costs as much as drawing the whole first view.

export const number = (n: number): string => String(Math.round(n)).replace(/\B(?=(?:\d{3})+$)/g, ",");

export function plural(n: number, one: string, many = one + "s"): string {
  return `${number(n)} ${n === 1 ? one : many}`;
}

/** A sentence of the server begins small: it stands alone here. */
export const capital = (s: string): string => s.charAt(0).toUpperCase() + s.slice(1);

/** A share from 0 to 1; number and unit stay in one line. What is neither nothing nor everything never looks like it. */
export function percent(share: number): string {
  const p = share * 100;
  if (p > 0 && p < 0.1) return "<0.1\u00a0%";
  if (p < 100 && p > 99.9) return "99.9\u00a0%";
  return `${p < 10 && p !== Math.round(p) ? p.toFixed(1) : Math.floor(p + 1e-9)}\u00a0%`;
}

export function size(bytes: number): string {
  const names = ["B", "KiB", "MiB", "GiB", "TiB"];
  let n = bytes, i = 0;
  while (n >= 1024 && i < names.length - 1) { n /= 1024; i++; }
  return `${i === 0 ? n : n < 10 ? n.toFixed(2) : n < 100 ? n.toFixed(1) : n.toFixed(0)}\u00a0${names[i]}`;
}

/** A time of the interface; undefined for Go's zero, which means none. */
export function time(text: string | undefined | null): Date | undefined {
  if (!text || text.startsWith("0001-")) return undefined;
  const d = new Date(text);
  return Number.isNaN(d.getTime()) ? undefined : d;
}

const days = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
const months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const two = (n: number): string => String(n).padStart(2, "0");

/** "27 Nov" */
export const date = (d: Date): string => `${d.getDate()} ${months[d.getMonth()]!}`;
export const day = (d: Date): string => `${date(d)} ${d.getFullYear()}`;
/** "14:05" */
export const clock = (d: Date): string => `${two(d.getHours())}:${two(d.getMinutes())}`;
export const short = (d: Date): string => `${date(d)}, ${clock(d)}`;

/** "Fri 27 Nov 2026, 14:05:09 UTC+1" */
export function exact(d: Date): string {
  const east = -d.getTimezoneOffset(), far = Math.abs(east);
  const offset = far === 0 ? "" : `${east < 0 ? "-" : "+"}${Math.floor(far / 60)}${far % 60 ? `:${two(far % 60)}` : ""}`;
  return `${days[d.getDay()]!} ${day(d)}, ${clock(d)}:${two(d.getSeconds())} UTC${offset}`;
}

export const zone = (): string => Intl.DateTimeFormat().resolvedOptions().timeZone;

/** A count of units from now: negative is past. */
function away(n: number, unit: string): string {
  return n < 0 ? `${plural(-n, unit)} ago` : `in ${plural(n, unit)}`;
}

/** "3 minutes ago", "in 2 hours"; the date when it is weeks away. */
export function relative(d: Date, now = Date.now()): string {
  const s = (d.getTime() - now) / 1000, far = Math.abs(s);
  if (far < 45) return s <= 0 ? "just now" : "in a moment";
  if (far < 45 * 60) return away(Math.round(s / 60), "minute");
  if (far < 22 * 3600) return away(Math.round(s / 3600), "hour");
  const whole = Math.round(s / 86400);
  if (far < 21 * 86400) return whole === -1 ? "yesterday" : whole === 1 ? "tomorrow" : away(whole, "day");
  return day(d);
}
