// Fields of forms: a label that belongs to its input, a hint, and what is wrong, tied together for screen readers.
import type { ComponentChildren } from "preact";
import { useEffect, useId, useRef, useState } from "preact/hooks";
import { parseDuration, words } from "../lib/duration";
import { Icon } from "./icons";

interface Base { label: ComponentChildren; hint?: ComponentChildren; wrong?: string | undefined }

function Field({ label, hint, wrong, children }: Base & { children: (id: string, about: string | undefined) => ComponentChildren }) {
  const id = useId(), about = hint || wrong ? `${id}-about` : undefined;
  return (
    <div class={`field${wrong ? " field-wrong" : ""}`}>
      <label for={id}>{label}</label>
      {children(id, about)}
      {about && <p id={about} class="hint">{wrong ? <span class="wrong">{wrong}</span> : hint}</p>}
    </div>
  );
}

export function Text({ value, set, type = "text", mono, required, placeholder, list, maxLength = 500, ...base }: Base & {
  value: string; set: (v: string) => void; type?: "text" | "url" | "password"; mono?: boolean; required?: boolean; placeholder?: string; list?: readonly string[]; maxLength?: number;
}) {
  const listId = useId();
  return (
    <Field {...base}>
      {(id, about) => (
        <>
          <input id={id} type={type as "text"} class={mono ? "mono" : undefined} value={value} required={required} placeholder={placeholder} maxLength={maxLength} autocomplete="off" spellcheck={false}
            aria-describedby={about} aria-invalid={base.wrong ? true : undefined} list={list ? listId : undefined} onInput={(e) => set(e.currentTarget.value)} />
          {list && <datalist id={listId}>{list.map((v) => <option key={v} value={v} />)}</datalist>}
        </>
      )}
    </Field>
  );
}

export function Select({ value, set, options, ...base }: Base & { value: string; set: (v: string) => void; options: readonly (readonly [string, string])[] }) {
  return (
    <Field {...base}>
      {(id, about) => (
        <select id={id} value={value} aria-describedby={about} onChange={(e) => set(e.currentTarget.value)}>
          {!options.some(([v]) => v === value) && <option value={value}>{value}</option>}
          {options.map(([v, text]) => <option key={v} value={v}>{text}</option>)}
        </select>
      )}
    </Field>
  );
}

/** A number that may be missing: the text is kept as it was typed. */
export function NumberField({ value, set, unit, max, step = 1, placeholder, ...base }: Base & { value: string; set: (v: string) => void; unit?: string; placeholder?: string; max?: number; step?: number | "any" }) {
  const n = Number(value);
  const wrong = value !== "" && (!Number.isFinite(n) || n < 0 || (step === 1 && !Number.isInteger(n))) ? `a ${step === 1 ? "whole " : ""}number, 0 or more` : value !== "" && max !== undefined && n > max ? `at most ${max}` : undefined;
  return (
    <Field {...base} wrong={base.wrong ?? wrong}>
      {(id, about) => (
        <span class="with-unit">
          <input id={id} inputMode="decimal" value={value} placeholder={placeholder} autocomplete="off" aria-describedby={about} aria-invalid={wrong ? true : undefined} onInput={(e) => set(e.currentTarget.value.trim())} />
          {unit && <span class="unit">{unit}</span>}
        </span>
      )}
    </Field>
  );
}

export function DurationField({ value, set, placeholder = "0", ...base }: Base & { value: string; set: (v: string) => void; placeholder?: string }) {
  const ms = parseDuration(value);
  const wrong = value !== "" && ms === undefined ? "a duration such as 90m, 6h or 1d 12h" : undefined;
  return (
    <Field {...base} wrong={base.wrong ?? wrong}>
      {(id, about) => (
        <span class="with-unit">
          <input id={id} value={value} autocomplete="off" spellcheck={false} placeholder={placeholder} aria-describedby={about} aria-invalid={wrong ? true : undefined} onInput={(e) => set(e.currentTarget.value)} />
          {ms !== undefined && ms > 0 && <span class="unit">{words(ms)}</span>}
        </span>
      )}
    </Field>
  );
}

export function Check({ label, checked, set }: { label: ComponentChildren; checked: boolean; set: (v: boolean) => void }) {
  return <label class="check"><input type="checkbox" checked={checked} onChange={(e) => set(e.currentTarget.checked)} /><span>{label}</span></label>;
}

/** A text that is told once somebody stops typing; what is told from elsewhere goes before it. */
function useLater(value: string, set: (v: string) => void): { text: string; later: (v: string) => void } {
  const [text, setText] = useState(value);
  const timer = useRef<ReturnType<typeof setTimeout>>(undefined);
  const sent = useRef(value);
  useEffect(() => { if (value !== sent.current) { sent.current = value; setText(value); } }, [value]);
  const later = (v: string) => {
    setText(v);
    clearTimeout(timer.current);
    timer.current = setTimeout(() => { sent.current = v.trim(); set(v.trim()); }, 250);
  };
  return { text, later };
}

/** A search that waits until somebody stops typing. "/" focuses it. */
export function Search({ value, set, label }: { value: string; set: (v: string) => void; label: string }) {
  const { text, later } = useLater(value, set);
  return (
    <div class="search">
      <Icon name="search" />
      <input type="search" data-search aria-label={label} placeholder={label} value={text} autocomplete="off" spellcheck={false} maxLength={200} onInput={(e) => later(e.currentTarget.value)} />
      <kbd aria-hidden="true">/</kbd>
    </div>
  );
}

/** A small text of a filter bar, with suggestions: it is sent when somebody stops typing. */
export function TextPick({ label, value, set, list }: { label: string; value: string; set: (v: string) => void; list: readonly string[] }) {
  const id = useId();
  const { text, later } = useLater(value, set);
  return (
    <label class={`pick${value ? " on" : ""}`}>
      <span class="pick-name">{label}</span>
      <input value={text} placeholder="Any" list={id} maxLength={80} autocomplete="off" spellcheck={false} onInput={(e) => later(e.currentTarget.value)} />
      <datalist id={id}>{list.map((v) => <option key={v} value={v} />)}</datalist>
    </label>
  );
}

/** One of a few, all visible. */
export function Choice({ label, value, set, options }: { label: string; value: string; set: (v: string) => void; options: readonly (readonly [string, string])[] }) {
  return (
    <fieldset class="choice">
      <legend class="hidden">{label}</legend>
      {options.map(([v, text]) => (
        <label key={v} class={v === value ? "on" : undefined}>
          <input type="radio" name={label} value={v} checked={v === value} onChange={() => set(v)} /><span>{text}</span>
        </label>
      ))}
    </fieldset>
  );
}

/** A small select of a filter bar. */
export function Pick({ label, value, set, options }: { label: string; value: string; set: (v: string) => void; options: readonly (readonly [string, string])[] }) {
  return (
    <label class={`pick${value ? " on" : ""}`}>
      <span class="pick-name">{label}</span>
      <select value={value} onChange={(e) => set(e.currentTarget.value)}>
        <option value="">Any</option>
        {value && !options.some(([v]) => v === value) && <option value={value}>{value}</option>}
        {options.map(([v, text]) => <option key={v} value={v}>{text}</option>)}
      </select>
    </label>
  );
}
