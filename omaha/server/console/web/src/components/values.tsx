// Small things that are shown everywhere: times, numbers, versions, ids, states.
import type { ComponentChildren } from "preact";
import { useEffect, useState } from "preact/hooks";
import { exact, number, relative, short, size, time } from "../lib/format";
import { href } from "../lib/router";
import { Icon, type IconName } from "./icons";
import { say } from "./toast";

// One clock for all relative times of a view.
const ticks = new Set<() => void>();
setInterval(() => { if (!document.hidden) for (const t of [...ticks]) t(); }, 30_000);

function useTick(): void {
  const [, draw] = useState(0);
  useEffect(() => {
    const t = () => draw((n) => n + 1);
    ticks.add(t);
    return () => void ticks.delete(t);
  }, []);
}

/** A time: relative, with the exact one and its zone on hover and on focus. */
export function Time({ at, none = "never", as = "relative" }: { at: string | undefined | null; none?: string; as?: "relative" | "short" | "exact" }) {
  useTick();
  const d = time(at);
  if (!d) return <span class="muted">{none}</span>;
  const text = as === "relative" ? relative(d) : as === "short" ? short(d) : exact(d);
  return <time dateTime={d.toISOString()} title={exact(d)}>{text}</time>;
}

export function Num({ n }: { n: number }) { return <span class="num">{number(n)}</span>; }
export function Size({ bytes }: { bytes: number }) { return <span class="num" title={`${number(bytes)} bytes`}>{size(bytes)}</span>; }

export function Version({ v, none = "none" }: { v: string; none?: string }) {
  return v ? <span class="version">{v}</span> : <span class="muted">{none}</span>;
}

export function ReleaseLink({ arch, v, none }: { arch: string; v: string; none?: string }) {
  if (!v) return <Version v="" {...(none ? { none } : {})} />;
  return <a class="version" href={href(`/releases/${encodeURIComponent(arch)}/${encodeURIComponent(v)}`)}>{v}</a>;
}

/** Something long of which the ends tell most: the middle gives way where there is no room. */
export function Id({ text, copy = false }: { text: string; copy?: boolean }) {
  const cut = text.length > 12 ? text.length - 6 : text.length;
  return (
    <span class="id" title={text}>
      <span class="id-text"><span class="id-head">{text.slice(0, cut)}</span><span class="id-tail">{text.slice(cut)}</span></span>
      {copy && <Copy text={text} what="it" />}
    </span>
  );
}

export function Copy({ text, what, label }: { text: string; what: string; label?: string }) {
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      say("Copied.");
    } catch {
      say("The browser does not let this page copy: select the text and copy it by hand.", "warn");
    }
  };
  return <button type="button" class={label ? "button" : "ghost"} onClick={() => void copy()} aria-label={label ? undefined : `Copy ${what}`} title={`Copy ${what}`}><Icon name="copy" />{label}</button>;
}

export type Tone = "good" | "bad" | "warn" | "active" | "idle";

/** A state: an icon, a word and a colour, so that none of them is needed alone. */
export function Status({ tone, icon, children, title }: { tone: Tone; icon: IconName; children: ComponentChildren; title?: string }) {
  return <span class={`status status-${tone}`} title={title}><Icon name={icon} /><span>{children}</span></span>;
}

const machineStates: Record<string, [Tone, IconName, string]> = {
  unknown: ["idle", "ring", "No update yet"],
  granted: ["active", "half", "Granted"],
  downloading: ["active", "half", "Downloading"],
  downloaded: ["active", "half", "Downloaded"],
  installed: ["active", "reboots", "Reboots"],
  complete: ["good", "check", "Complete"],
  failed: ["bad", "cross", "Failed"],
};

export function MachineState({ state }: { state: string }) {
  const [tone, icon, text] = machineStates[state] ?? ["idle", "dot", state];
  return <Status tone={tone} icon={icon} title={state}>{text}</Status>;
}

/** On the way between the grant and the reboot, as the interface takes several states. */
export const updatingStates = "granted,downloading,downloaded,installed";

export const machineStateNames = Object.entries(machineStates).map(([value, [, , text]]) => [value, text] as const);

const rolloutStates: Record<string, [Tone, IconName, string]> = {
  draft: ["idle", "ring", "Draft"],
  canary: ["active", "half", "Canaries"],
  ramping: ["active", "rollouts", "Ramping"],
  paused: ["warn", "pause", "Paused"],
  halted: ["bad", "stop", "Halted"],
  aborted: ["idle", "cross", "Aborted"],
  done: ["good", "check", "Done"],
};

export function RolloutState({ state }: { state: string }) {
  const [tone, icon, text] = rolloutStates[state] ?? ["idle", "dot", state];
  return <Status tone={tone} icon={icon}>{text}</Status>;
}
