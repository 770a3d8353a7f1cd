// Reboot locks: who may be down now, who waits, and taking a slot away from whoever will not give it back.
import * as api from "../api/calls";
import type { Claim, RebootGroup } from "../api/types";
import { ask } from "../components/ask";
import { DurationField, NumberField, Text } from "../components/fields";
import { Icon } from "../components/icons";
import { Card, Empty, Page, Show } from "../components/page";
import { Table } from "../components/table";
import { Status, Time } from "../components/values";
import { durationWords, goDuration, parseDuration } from "../lib/duration";
import { number, plural } from "../lib/format";
import { useLoad } from "../lib/load";
import { may } from "../lib/session";
import { MachineLink } from "./machines";

export function RebootsPage() {
  const all = useLoad("reboots", api.reboots, ["reboots"]);
  return (
    <Page title="Reboot locks" lead="So many machines of a group may be down at once. They ask before they reboot, and say when they are healthy again."
      actions={may("operator") && <button type="button" class="button" onClick={() => askSlots(undefined, "", all.reload)}><Icon name="plus" />New group</button>}>
      <Show of={all} rows={6}>
        {(d) => d.groups.length === 0 ? <Empty icon="reboots" title="No group">A reboot group is machines of which only so many may be down at once, such as the members of one database cluster.</Empty> : <>{d.groups.map((g) => <GroupCard key={g.name} g={g} etag={all.etag} reload={all.reload} />)}</>}
      </Show>
    </Page>
  );
}

function GroupCard({ g, etag, reload }: { g: RebootGroup; etag: string; reload: () => void }) {
  const holders = g.holders ?? [], queue = g.queue ?? [];
  const lease = parseDuration(g.lease) ?? 0;
  return (
    <Card title={g.name} flush aside={<span class="aside-row">
      <span class="slots" aria-label={`${holders.length} of ${g.slots} slots taken`}><strong class="num">{number(holders.length)}</strong> of {plural(g.slots, "slot")} taken</span>
      <span class="muted">lease {lease > 0 ? durationWords(g.lease) : "without end"}</span>
      {may("operator") && <button type="button" class="button small" aria-label={`Change group ${g.name}`} onClick={() => askSlots(g, g.etag ?? etag, reload)}>Change</button>}
    </span>}>
      {holders.length === 0 && queue.length === 0 ? <Empty icon="check" title="Nobody reboots, nobody waits">A machine asks for one of the slots before it reboots, where <code>semper.update.toml</code> names this group.</Empty> : (
        <Table caption={`Machines that reboot or wait in group ${g.name}`} rows={[...holders.map((c) => ({ ...c, holds: true })), ...queue.map((c) => ({ ...c, holds: false }))]} id={(c) => `${c.machine} ${c.holds}`} columns={[
          { name: "Machine", grow: true, cell: (c) => <MachineLink m={{ id: c.machine, alias: c.alias }} /> },
          { name: "What", cell: (c) => (c.holds ? <Status tone={stale(c, lease) ? "warn" : "active"} icon="reboots">Has a slot</Status> : <Status tone="idle" icon="ring">Waits</Status>) },
          { name: "Since", cell: (c) => <Time at={c.since} /> },
          { name: "Last word", cell: (c) => <Time at={c.seen} /> },
          { name: "Actions", bare: true, cell: (c) => c.holds && may("operator") && <span class="row-acts"><button type="button" class="button small" aria-label={`Release the slot of ${c.alias || c.machine}`} onClick={() => ask({
            title: "Release this slot?",
            what: <><p>The slot of {c.alias ? <strong>{c.alias}</strong> : <span class="mono break">{c.machine}</span>} is free at once, and the next machine that asks may reboot. If this one is still down, more machines are down than the group allows.</p></>,
            act: "Release", danger: true, reason: "needed", run: (reason) => api.releaseSlot(g.name, c.machine, reason), done: "The slot is free.", after: reload, changed: reload,
          })}>Release</button></span> },
        ]} />
      )}
    </Card>
  );
}

/** A holder that said nothing for most of its lease is likely to be in trouble. */
const stale = (c: Claim, lease: number) => lease > 0 && Date.now() - Date.parse(c.seen) > lease / 2;

function askSlots(g: RebootGroup | undefined, etag: string, reload: () => void): void {
  let name = g?.name ?? "", slots = String(g?.slots ?? 1), lease = g ? durationWords(g.lease).replace(/\s/g, "").replace("min", "m") : "1h";
  const draw = () => ask({
    title: g ? `Change group ${g.name}` : "Make a reboot group",
    what: <p>More slots let the next ones go at once; fewer take nobody's away; 0 lets nobody begin. A holder that says nothing for the lease loses its slot.</p>,
    fields: <>
      {!g && <Text label="Name" value={name} set={(v) => { name = v.trim(); draw(); }} required maxLength={64} />}
      <div class="fields">
        <NumberField label="Slots" value={slots} max={1_000_000} set={(v) => { slots = v; draw(); }} />
        <DurationField label="Lease" value={lease} set={(v) => { lease = v; draw(); }} hint="1m to 168h; 0: without end." />
      </div>
    </>,
    ready: () => name !== "" && /^\d+$/.test(slots) && parseDuration(lease) !== undefined, act: g ? "Change" : "Make it",
    run: () => api.setReboots(name, Number(slots), goDuration(parseDuration(lease) ?? 0), { etag }), done: "Done.", after: reload, changed: reload,
  });
  draw();
}
