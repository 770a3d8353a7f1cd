// Asks once before something is changed: what it will do, a reason where one is kept, and the name typed where it cannot be undone.
import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { newKey, Problem } from "../api/client";
import { Icon } from "./icons";
import { say } from "./toast";

export interface Question {
  title: string;
  what: ComponentChildren; // that will happen
  act: string; // the button
  danger?: boolean;
  typed?: string; // to be typed
  reason?: "wanted" | "needed";
  fields?: ComponentChildren;
  ready?: () => boolean; // of the fields
  run: (reason: string, key: string) => Promise<unknown>;
  done?: string; // said afterwards
  after?: () => void;
  changed?: () => void; // somebody else changed it: read it again
}

let open: ((q: Question) => void) | undefined;
export function ask(q: Question): void { open?.(q); }

/** Holds the dialog; there is one in the page. */
export function Asking() {
  const [question, set] = useState<Question>();
  useEffect(() => {
    open = set;
    return () => { open = undefined; };
  }, []);
  return question ? <Dialog key={question.title} question={question} close={() => set(undefined)} /> : null;
}

function Dialog({ question: q, close }: { question: Question; close: () => void }) {
  const box = useRef<HTMLDialogElement>(null);
  const key = useRef(newKey());
  const [reason, setReason] = useState("");
  const [typed, setTyped] = useState("");
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState<Problem>();

  useEffect(() => {
    const d = box.current;
    const from = document.activeElement;
    d?.showModal();
    d?.querySelector<HTMLElement>(".dialog-body :is(input, select, textarea), .dialog-foot button")?.focus(); // and not what closes it
    return () => {
      d?.close();
      if (from instanceof HTMLElement && from.isConnected) from.focus();
    };
  }, []);

  const ready = !busy && (!q.typed || typed === q.typed) && (q.reason !== "needed" || reason.trim() !== "") && (q.ready?.() ?? true);
  const submit = async (e: Event) => {
    e.preventDefault();
    if (!ready) return;
    setBusy(true);
    setProblem(undefined);
    try {
      await q.run(reason.trim(), key.current);
      close();
      if (q.done) say(q.done);
      q.after?.();
    } catch (e) {
      const p = e instanceof Problem ? e : new Problem(0, "Failed", String(e), "internal");
      setProblem(p);
      if (p.status !== 0) key.current = newKey(); // it was answered: the next try is another request
      if (p.status === 412) q.changed?.();
    } finally {
      setBusy(false);
    }
  };

  return (
    <dialog ref={box} class="dialog" aria-labelledby="ask-title" onClose={close} onClick={(e) => { if (e.target === box.current && !busy) close(); }}>
      <form onSubmit={(e) => void submit(e)}>
        <header class="dialog-head"><h2 id="ask-title">{q.title}</h2><button type="button" class="ghost" aria-label="Close" onClick={close}><Icon name="cross" /></button></header>
        <div class="dialog-body">
          <div class="what">{q.what}</div>
          {q.fields}
          {q.reason && (
            <label class="field">
              <span>Reason{q.reason === "needed" ? "" : <span class="muted"> (kept in the audit log)</span>}</span>
              <textarea rows={2} maxLength={900} required={q.reason === "needed"} value={reason} onInput={(e) => setReason(e.currentTarget.value)} />
            </label>
          )}
          {q.typed && (
            <label class="field">
              <span>To confirm, type <strong class="mono">{q.typed}</strong></span>
              <input class="mono" autocomplete="off" autocapitalize="off" spellcheck={false} value={typed} onInput={(e) => setTyped(e.currentTarget.value)} />
            </label>
          )}
          {problem && (
            <div class="trouble" role="alert">
              <Icon name="alert" />
              <div>{problem.status === 412
                ? <><strong>Somebody changed it in the meantime</strong><p>Nothing was done. The page shows the new state: close this, look again, and decide anew.</p></>
                : <><strong>{problem.title}</strong><p>{problem.message}</p></>}
              </div>
            </div>
          )}
        </div>
        <footer class="dialog-foot">
          <button type="button" class="button" onClick={close}>Cancel</button>
          <button type="submit" class={`button ${q.danger ? "danger" : "primary"}`} disabled={!ready || problem?.status === 412}>{busy ? "Working…" : q.act}</button>
        </footer>
      </form>
    </dialog>
  );
}
