// The audit log: who changed what, with what it was before and what it is now.
import * as api from "../api/calls";
import type { AuditEntry } from "../api/types";
import { Search } from "../components/fields";
import { Card, Empty, Page, Show } from "../components/page";
import { Table } from "../components/table";
import { Pages } from "../components/pages";
import { Time } from "../components/values";
import { Who, Words } from "../components/words";
import { auditQuery } from "../lib/asks";
import { useLoad } from "../lib/load";
import { href, filter, type Place } from "../lib/router";
import { differences, type Difference } from "../lib/differences";

export function AuditPage({ place }: { place: Place }) {
  const text = place.query.get("text") ?? "", before = place.query.get("before") ?? "";
  const log = useLoad(`audit ${text} ${before}`, () => api.audit(auditQuery(place.query)), ["audit"]);
  return (
    <Page title="Audit log" lead="What people, programs in their name, and rollouts changed. Newest first.">
      <div class="filters"><Search label="Who, what or which" value={text} set={(v) => filter({ text: v, before: "" })} /></div>
      <Card flush>
        <Show of={log} rows={8}>
          {(d) => d.entries.length === 0
            ? <Empty icon="audit" title={text ? "Nothing matches" : "Nothing was changed yet"}>{text ? <a href={href("/audit")}>Show all entries</a> : "Each change leaves an entry here, with who made it: sign-ins, releases, channels, rollouts, pins, roles, tokens."}</Empty>
            : <Table caption="Changes, newest first" rows={d.entries} id={(e) => e.id ?? e.at + e.subject + e.what} columns={[
              { name: "When", cell: (e) => <Time at={e.at} /> },
              { name: "Who", cell: (e) => (e.who ? <span class="one-line"><Who text={e.who} full /></span> : <span class="muted">the server</span>) },
              { name: "What", cell: (e) => <code class="one-line">{e.what}</code> },
              { name: "Of", cell: (e) => <span class="break"><Subject of={e} /></span> },
              { name: "Details", grow: true, cell: (e) => <Details entry={e} /> },
            ]} />}
        </Show>
      </Card>
      <Pages list={`audit ${text}`} at={before} next={log.data?.next} to={(at) => href("/audit", { text, before: at })} words={{ first: "Newest", previous: "Newer", next: "Older" }} />
    </Page>
  );
}

/** What was changed, with a link where it has a page. */
function Subject({ of: e }: { of: AuditEntry }) {
  const rollout = /^rollout (\d+)\b/.exec(e.subject);
  if (rollout) return <a href={href(`/rollouts/${rollout[1]}`)}>{e.subject}</a>;
  const machine = /^(?:machine )?([0-9a-f]{32})$/.exec(e.subject);
  if (machine) return <a href={href(`/machines/${machine[1]}`)}><Words text={e.subject} /></a>;
  return <Words text={e.subject} />;
}

function Details({ entry: e }: { entry: AuditEntry }) {
  const changed = differences(e.before, e.after);
  const one = changed.length === 1 && changed[0]!.before.length + changed[0]!.after.length < 80 ? changed[0] : undefined;
  return (
    <>
      {e.detail && e.detail !== e.after && <Detail text={e.detail} />}
      {one && <p class="diff">{one.name && <span class="muted">{one.name} </span>}<Change c={one} /></p>}
      {!one && changed.length > 0 && (
        <details class="diff">
          <summary>{changed.length === 1 ? `${changed[0]!.name || "value"} changed` : `${changed.length} fields changed`}</summary>
          <dl>
            {changed.map((c) => <div key={c.name}><dt>{c.name || "value"}</dt><dd><Change c={c} /></dd></div>)}
          </dl>
        </details>
      )}
    </>
  );
}

/** A long one, such as a halt's with all its machines, opens. */
function Detail({ text }: { text: string }) {
  const [gist, ...rest] = text.split(": ");
  if (text.length < 240 || rest.length === 0) return <span class="break"><Words text={text} /></span>;
  return <details class="diff"><summary>{gist}</summary><p class="break"><Words text={rest.join(": ")} /></p></details>;
}

function Change({ c }: { c: Difference }) {
  return <><del><Words text={c.before} /></del><span class="muted" aria-hidden="true"> → </span><span class="hidden"> became </span><ins><Words text={c.after} /></ins></>;
}
