// The keyboard. Nothing here is active while somebody types, and every action has another way.
import { useEffect } from "preact/hooks";
import { go, href } from "./router";
import { nextTheme, setTheme } from "./theme";

export const places = [
  ["o", "/", "Overview"], ["m", "/machines", "Machines"], ["e", "/releases", "Releases"], ["r", "/rollouts", "Rollouts"], ["n", "/rollouts/new", "Plan a rollout"],
  ["c", "/channels", "Channels and groups"], ["b", "/reboots", "Reboot locks"], ["p", "/people", "People and tokens"], ["a", "/audit", "Audit log"],
] as const;

let openHelp: (() => void) | undefined;
export function onHelp(then: (() => void) | undefined): void { openHelp = then; }
export function help(): void { openHelp?.(); }

const secondKey = 1_500; // ms after "g"

function typing(e: KeyboardEvent): boolean {
  const t = e.target;
  return t instanceof HTMLElement && (t.isContentEditable || t.tagName === "TEXTAREA" || t.tagName === "SELECT" || (t instanceof HTMLInputElement && !["checkbox", "radio", "button", "submit"].includes(t.type)));
}

/** Moves among the rows of the view's tables. */
function step(by: number): void {
  const rows = [...document.querySelectorAll<HTMLElement>("main tbody th a")];
  if (rows.length === 0) return;
  const at = rows.indexOf(document.activeElement as HTMLElement);
  rows[at < 0 ? (by > 0 ? 0 : rows.length - 1) : Math.min(Math.max(at + by, 0), rows.length - 1)]?.focus();
}

export function useKeys(active: boolean): void {
  useEffect(() => {
    if (!active) return;
    let going = -Infinity; // when "g" was pressed; times begin at 0 with the page
    const press = (e: KeyboardEvent) => {
      if (e.ctrlKey || e.metaKey || e.altKey || document.querySelector("dialog[open]")) return;
      if (typing(e)) {
        if (e.key === "Escape") (e.target as HTMLElement).blur();
        return;
      }
      if (e.timeStamp - going < secondKey) {
        going = -Infinity;
        const to = places.find(([key]) => key === e.key);
        if (to) { e.preventDefault(); go(href(to[1])); }
        return;
      }
      switch (e.key) {
        case "g": going = e.timeStamp; return;
        case "?": help(); break;
        case "/": {
          const search = document.querySelector<HTMLInputElement>("[data-search]");
          if (!search) return;
          search.focus();
          search.select();
          break;
        }
        case "j": step(1); break;
        case "k": step(-1); break;
        case "t": setTheme(nextTheme()); break;
        default: return;
      }
      e.preventDefault();
    };
    addEventListener("keydown", press);
    return () => removeEventListener("keydown", press);
  }, [active]);
}
