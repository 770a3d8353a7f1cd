// What a view shows: read when it opens, kept for when somebody comes back, read again when its topics change.
import { useCallback, useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { Problem, type Answer } from "../api/client";
import { drop } from "../api/early";
import { onChange, type Topic } from "./live";

export interface Loaded<T> {
  data: T | undefined;
  etag: string;
  problem: Problem | undefined; // of the last try; data may still be there, from before
  loading: boolean;
  reload: () => void;
}

const kept = new Map<string, Answer<unknown>>();
const maxKept = 60;

/** Forgets what was read: another person may be signing in. */
export function forget(): void {
  kept.clear();
  drop();
}

/** Reads what key names. An empty key reads nothing. */
export function useLoad<T>(key: string, read: () => Promise<Answer<T>>, topics: readonly Topic[] = []): Loaded<T> {
  const [, draw] = useState(0);
  const state = useRef<{ key: string; answer: Answer<T> | undefined; problem: Problem | undefined; busy: boolean; again: boolean }>(null!);
  if (!state.current || state.current.key !== key) {
    state.current = { key, answer: kept.get(key) as Answer<T> | undefined, problem: undefined, busy: false, again: false };
  }
  const reader = useRef(read);
  reader.current = read;

  const reload = useCallback(() => {
    const s = state.current;
    if (!s.key) return;
    if (s.busy) { s.again = true; return; } // one at a time, and the last news is never missed
    s.busy = true;
    reader.current().then((answer) => {
      s.answer = answer;
      s.problem = undefined;
      kept.delete(s.key);
      kept.set(s.key, answer);
      if (kept.size > maxKept) kept.delete(kept.keys().next().value!);
    }, (e: unknown) => {
      s.problem = e instanceof Problem ? e : new Problem(0, "Failed", String(e), "internal");
    }).finally(() => {
      s.busy = false;
      if (state.current !== s) return;
      draw((n) => n + 1);
      if (s.again) { s.again = false; reload(); }
    });
  }, []);

  useLayoutEffect(() => { reload(); }, [key]); // before the paint: an answer that is there already is part of it
  const topicKey = topics.join();
  useEffect(() => onChange(topicKey ? (topicKey.split(",") as Topic[]) : [], reload), [topicKey]);

  const s = state.current;
  return { data: s.answer?.data, etag: s.answer?.etag ?? "", problem: s.problem, loading: !s.answer && !s.problem && key !== "", reload };
}
