// The navigation: at the left, and on a phone at the bottom, where what is needed less is behind "More".
import { useEffect, useRef } from "preact/hooks";
import * as api from "../api/calls";
import type { Me } from "../api/types";
import { help } from "../lib/keys";
import { useLink } from "../lib/live";
import { useLoad } from "../lib/load";
import { currentApp, go, href } from "../lib/router";
import { may, signOut } from "../lib/session";
import { nextTheme, setTheme, useTheme } from "../lib/theme";
import { Icon, Mark, type IconName } from "./icons";

interface Item { path: string; text: string; icon: IconName; admin?: boolean; minor?: boolean }
const items: Item[] = [
  { path: "/", text: "Overview", icon: "overview" },
  { path: "/machines", text: "Machines", icon: "machines" },
  { path: "/rollouts", text: "Rollouts", icon: "rollouts" },
  { path: "/releases", text: "Releases", icon: "releases" },
  { path: "/channels", text: "Channels", icon: "channels", minor: true },
  { path: "/reboots", text: "Reboot locks", icon: "reboots", minor: true },
  { path: "/people", text: "People", icon: "people", admin: true, minor: true },
  { path: "/audit", text: "Audit log", icon: "audit", minor: true },
];

const isAt = (path: string, item: Item) => (item.path === "/" ? path === "/" : path === item.path || path.startsWith(item.path + "/"));

function Items({ path, of, tell }: { path: string; of: Item[]; tell?: () => void }) {
  return (
    <>
      {of.map((i) => (
        <li key={i.path}><a href={href(i.path)} aria-current={isAt(path, i) ? "page" : undefined} onClick={tell}><Icon name={i.icon} /><span>{i.text}</span></a></li>
      ))}
    </>
  );
}

export function Nav({ path, me }: { path: string; me: Me | undefined }) {
  const more = useRef<HTMLDialogElement>(null);
  const shown = items.filter((i) => !i.admin || may("admin"));
  const close = () => more.current?.close();
  useEffect(close, [path]);
  return (
    <>
      <header class="side">
        <a class="brand" href={href("/")}><Mark /><span>Semper</span></a>
        <Apps />
        <nav aria-label="Main"><ul><Items path={path} of={shown} /></ul></nav>
        <div class="side-foot">
          <Connection />
          <Account me={me} />
        </div>
      </header>
      <nav class="bar" aria-label="Main, short">
        <ul>
          <Items path={path} of={shown.filter((i) => !i.minor)} />
          <li><button type="button" onClick={() => more.current?.showModal()} class={shown.some((i) => i.minor && isAt(path, i)) ? "on" : undefined}><Icon name="more" /><span>More</span></button></li>
        </ul>
      </nav>
      <dialog ref={more} class="dialog sheet" aria-label="More" onClick={(e) => { if (e.target === more.current) close(); }}>
        <nav aria-label="More"><ul class="side-list"><Items path={path} of={shown.filter((i) => i.minor)} tell={close} /></ul></nav>
        <Connection />
        <Account me={me} />
      </dialog>
    </>
  );
}

/** Which application, where there are several. */
function Apps() {
  const apps = useLoad("applications", api.applications).data?.applications ?? [];
  if (apps.length < 2) return null;
  return (
    <label class="apps"><span class="hidden">Application</span>
      <select value={currentApp()} onChange={(e) => go(e.currentTarget.value === "semper" ? "/" : `/?app=${encodeURIComponent(e.currentTarget.value)}`)}>
        {apps.map((a) => <option key={a.id} value={a.name}>{a.name}</option>)}
      </select>
    </label>
  );
}

function Connection() {
  const link = useLink();
  return (
    <p class={`connection ${link}`} role="status">
      {link === "live" ? <><span class="pulse" />Live</> : link === "connecting" ? <><span class="pulse" />Connecting</>
        : <><span class="pulse" /><span>Connection lost: this is looked up every 30 s, and live again once the server answers</span></>}
    </p>
  );
}

function Account({ me }: { me: Me | undefined }) {
  const { theme } = useTheme();
  const names = { system: "as the system", light: "light", dark: "dark" };
  return (
    <div class="account">
      {me && <div class="who"><span class="who-name" title={me.name}>{me.name}</span><span class="muted">{me.role}</span></div>}
      <div class="account-buttons">
        <button type="button" class="ghost" onClick={() => setTheme(nextTheme())} title={`Theme: ${names[theme]}`} aria-label={`Theme: ${names[theme]}. Change it`}>
          <Icon name={theme === "system" ? "system" : theme === "light" ? "sun" : "moon"} />
        </button>
        <button type="button" class="ghost keyboard-only" onClick={help} title="Keyboard (?)" aria-label="Keyboard shortcuts"><Icon name="keyboard" /></button>
        <button type="button" class="ghost" onClick={() => void signOut()} title="Sign out" aria-label="Sign out"><Icon name="leave" /></button>
      </div>
    </div>
  );
}
