// Light, dark, or as the system has it. first.ts sets the stored one before the first paint.
import { useEffect, useState } from "preact/hooks";

export type Theme = "system" | "light" | "dark";
const name = "semper-theme";
const listeners = new Set<() => void>();
const system = matchMedia("(prefers-color-scheme: dark)");
system.addEventListener("change", () => tell());

function tell(): void { for (const l of [...listeners]) l(); }

export function theme(): Theme {
  const t = localStorage.getItem(name);
  return t === "light" || t === "dark" ? t : "system";
}

export function setTheme(t: Theme): void {
  if (t === "system") {
    localStorage.removeItem(name);
    delete document.documentElement.dataset["theme"];
  } else {
    localStorage.setItem(name, t);
    document.documentElement.dataset["theme"] = t;
  }
  tell();
}

export function nextTheme(): Theme { return ({ system: "light", light: "dark", dark: "system" } as const)[theme()]; }

/** The theme, and a number that changes when colours do: what draws on a canvas draws again then. */
export function useTheme(): { theme: Theme; changes: number } {
  const [changes, set] = useState(0);
  useEffect(() => {
    const l = () => set((n) => n + 1);
    listeners.add(l);
    return () => void listeners.delete(l);
  }, []);
  return { theme: theme(), changes };
}
