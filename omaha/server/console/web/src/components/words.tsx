// What the server says in words, as this console shows it: times in the viewer's zone, durations with their units, long hashes and ids short, and who did something by name.
import type { ComponentChildren } from "preact";
import { durationWords } from "../lib/duration";
import { Time } from "./values";

const special = /(\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z| UTC))|\b([0-9a-f]{32,})\b|\b((?:\d+h)?\d+m\d+s)\b/g;

export function Words({ text }: { text: string }) {
  const out: ComponentChildren[] = [];
  let from = 0;
  for (const m of text.matchAll(special)) {
    out.push(text.slice(from, m.index));
    from = m.index + m[0].length;
    if (m[1]) out.push(<Time key={from} at={m[1].replace(" UTC", "Z").replace(" ", "T")} as="short" />);
    else if (m[3]) out.push(durationWords(m[3]));
    else out.push(<span key={from} class="mono" title={m[0]}>{m[0].slice(0, 8)}…{m[0].slice(-4)}</span>);
  }
  out.push(text.slice(from));
  return <>{out}</>;
}

/** Who did something, by name. How they proved to be that one is on hover or, where it is asked for, beside it. */
export function Who({ text, full = false }: { text: string; full?: boolean }) {
  const person = /^(.+) \((oidc|link)\)$/.exec(text), token = /^token ([0-9a-f]+) (.+)$/.exec(text);
  if (person) return <span title={`${person[1]}, signed in by ${person[2] === "oidc" ? "OIDC" : "a link"}`}>{person[1]}{full && <span class="under">{person[2] === "oidc" ? "OIDC" : "link"}</span>}</span>;
  if (token) return <span title={text}>{token[2]}{full && <span class="under">token {token[1]}</span>}</span>;
  return <>{text}</>;
}
