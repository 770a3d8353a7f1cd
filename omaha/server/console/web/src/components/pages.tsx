// The way through a list that is read in pages, or of which there is more than is shown.
import { useEffect } from "preact/hooks";
import { number } from "../lib/format";
import { before, passed } from "../lib/pages";
import { filter, type Place } from "../lib/router";

interface Props {
  list: string; // which one, with its filters
  at: string; // where this page begins; empty: the first one
  next: string | number | undefined;
  to: (at: string) => string;
  words?: { first: string; previous: string; next: string };
}

const usual = { first: "First page", previous: "Previous page", next: "Next page" };

export function Pages({ list, at, next, to, words = usual }: Props) {
  const then = next ? String(next) : "";
  useEffect(() => { if (then) passed(list, at, then); }, [list, at, then]);
  if (!at && !then) return null;
  const previous = at ? before(list, at) : undefined;
  return (
    <nav class="pages" aria-label="Pages">
      {at && <a class="button" href={to("")}>{words.first}</a>}
      {previous !== undefined && <a class="button" href={to(previous)} rel="prev">{words.previous}</a>}
      {then && <a class="button" href={to(then)} rel="next">{words.next}</a>}
    </nav>
  );
}

const first = 100; // rows

/** How many rows of a list a view's address wants: the console has them all, and the browser draws them slowly. */
export const mostOf = (p: Place): number => Math.max(Number(p.query.get("most")) || 0, first);

export function More({ of, most }: { of: number; most: number }) {
  if (of <= most) return null;
  return <nav class="pages" aria-label="Pages"><button type="button" class="button" onClick={() => filter({ most: most * 2 })}>Show more of {number(of)}</button></nav>;
}
