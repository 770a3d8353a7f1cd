// Numbers, sizes and times as people read them. One language for all, since the console's words are in it; the zone is the viewer's.
const lang = "en-GB";

const whole = new Intl.NumberFormat(lang, { maximumFractionDigits: 0 });
export const number = (n: number): string => whole.format(n);

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

const exactFormat = new Intl.DateTimeFormat(lang, { weekday: "short", day: "numeric", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit", timeZoneName: "short" });
const dayFormat = new Intl.DateTimeFormat(lang, { day: "numeric", month: "short", year: "numeric" });
const shortFormat = new Intl.DateTimeFormat(lang, { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });
const clockFormat = new Intl.DateTimeFormat(lang, { hour: "2-digit", minute: "2-digit" });

export const exact = (d: Date): string => exactFormat.format(d);
export const day = (d: Date): string => dayFormat.format(d);
export const short = (d: Date): string => shortFormat.format(d);
export const clock = (d: Date): string => clockFormat.format(d);
export const zone = (): string => Intl.DateTimeFormat().resolvedOptions().timeZone;

const relativeFormat = new Intl.RelativeTimeFormat(lang, { numeric: "auto" });

/** "3 minutes ago", "in 2 hours"; the date when it is weeks away. */
export function relative(d: Date, now = Date.now()): string {
  const s = (d.getTime() - now) / 1000, far = Math.abs(s);
  if (far < 45) return s <= 0 ? "just now" : "in a moment";
  if (far < 45 * 60) return relativeFormat.format(Math.round(s / 60), "minute");
  if (far < 22 * 3600) return relativeFormat.format(Math.round(s / 3600), "hour");
  if (far < 21 * 86400) return relativeFormat.format(Math.round(s / 86400), "day");
  return day(d);
}
