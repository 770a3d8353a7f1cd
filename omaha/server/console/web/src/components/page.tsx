// The frame of a view: its title, where it belongs, what can be done, and what is shown while there is nothing to show.
import type { ComponentChildren } from "preact";
import { useEffect } from "preact/hooks";
import type { Problem } from "../api/client";
import type { Loaded } from "../lib/load";
import { Icon, type IconName } from "./icons";

interface PageProps {
  title: string;
  heading?: ComponentChildren; // instead of the title
  up?: { text: string; href: string };
  actions?: ComponentChildren;
  lead?: ComponentChildren;
  children: ComponentChildren;
}

export function Page({ title, heading, up, actions, lead, children }: PageProps) {
  useEffect(() => { document.title = title === "Overview" ? "Semper" : `${title} · Semper`; }, [title]);
  return (
    <>
      <header class="page-head">
        <div class="page-title">
          {up && <a class="up" href={up.href}><Icon name="back" />{up.text}</a>}
          <h1 tabIndex={-1}>{heading ?? title}</h1>
          {lead && <div class="lead">{lead}</div>}
        </div>
        {actions && <div class="actions">{actions}</div>}
      </header>
      {children}
    </>
  );
}

export function Card({ title, aside, children, tone, flush, id }: { title?: ComponentChildren; aside?: ComponentChildren; children: ComponentChildren; tone?: "bad" | "warn" | "good"; flush?: boolean; id?: string }) {
  return (
    <section class={`card${tone ? ` card-${tone}` : ""}${flush ? " flush" : ""}`} id={id}>
      {(title || aside) && <header class="card-head">{title && <h2>{title}</h2>}{aside && <div class="card-aside">{aside}</div>}</header>}
      <div class="card-body">{children}</div>
    </section>
  );
}

export function Empty({ icon, title, children }: { icon: IconName; title: string; children?: ComponentChildren }) {
  return <div class="empty"><span class="empty-icon"><Icon name={icon} /></span><p class="empty-title">{title}</p>{children && <div class="empty-text">{children}</div>}</div>;
}

export function Trouble({ problem, retry }: { problem: Problem; retry?: () => void }) {
  return (
    <div class="trouble" role="alert">
      <Icon name="alert" />
      <div>
        <strong>{problem.status === 403 ? "You may not see this" : problem.status === 404 ? "Not found" : problem.title}</strong>
        <p>{problem.message}</p>
      </div>
      {retry && problem.status !== 403 && problem.status !== 404 && <button type="button" class="button" onClick={retry}>Try again</button>}
    </div>
  );
}

/** What was loaded, or that it is on its way, or why it is not there. Older data stays while a newer try fails. */
export function Show<T>({ of, children, rows = 3 }: { of: Loaded<T>; children: (data: T) => ComponentChildren; rows?: number }) {
  if (of.data !== undefined) {
    return (
      <>
        {of.problem && of.problem.status !== 0 && <Trouble problem={of.problem} retry={of.reload} />}
        {children(of.data)}
      </>
    );
  }
  if (of.problem) return <Trouble problem={of.problem} retry={of.reload} />;
  return <div class="waiting" role="status"><span class="hidden">Loading</span>{Array.from({ length: rows }, (_, i) => <span key={i} class="bone" />)}</div>;
}

export function Facts({ children }: { children: ComponentChildren }) { return <dl class="facts">{children}</dl>; }
export function Fact({ name, children }: { name: string; children: ComponentChildren }) { return <div><dt>{name}</dt><dd>{children}</dd></div>; }
