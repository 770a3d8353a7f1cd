// What just happened, said once and calmly: for eyes at the edge of the page, for screen readers through a live region.
import { useEffect, useState } from "preact/hooks";
import { Icon } from "./icons";

export type Kind = "good" | "warn";
interface Toast { id: number; text: string; kind: Kind }

let toasts: Toast[] = [];
let last = 0;
let draw: (() => void) | undefined;
const stay = 6_000;

export function say(text: string, kind: Kind = "good"): void {
  const id = ++last;
  toasts = [...toasts.slice(-2), { id, text, kind }];
  draw?.();
  setTimeout(() => {
    toasts = toasts.filter((t) => t.id !== id);
    draw?.();
  }, stay);
}

export function Toasts() {
  const [, set] = useState(0);
  useEffect(() => {
    draw = () => set((n) => n + 1);
    return () => { draw = undefined; };
  }, []);
  return (
    <div class="toasts" role="status" aria-live="polite">
      {toasts.map((t) => <div key={t.id} class={`toast toast-${t.kind}`}><Icon name={t.kind === "good" ? "check" : "alert"} />{t.text}</div>)}
    </div>
  );
}
