// The fleet: search and filters, all of them in the URL, and a page of machines.
import { useMemo } from "preact/hooks";
import * as api from "../api/calls";
import type { Machine } from "../api/types";
import { Check, Pick, Search, TextPick } from "../components/fields";
import { Card, Empty, Page, Show } from "../components/page";
import { Table, type Column } from "../components/table";
import { Id, MachineState, machineStateNames, ReleaseLink, Time, updatingStates } from "../components/values";
import { Pages } from "../components/pages";
import { Words } from "../components/words";
import { machineFilters, machineQuery, machinesQuery } from "../lib/asks";
import { plural } from "../lib/format";
import { useLoad } from "../lib/load";
import { filter, href, type Place } from "../lib/router";
import { compareVersions } from "../lib/versions";

const mostToPick = 200; // versions; of more, one is typed, and the newest are suggested

export function MachinesPage({ place }: { place: Place }) {
  const q = machineQuery(place.query);
  const after = place.query.get("after") ?? "";
  const key = `machines ${place.query.toString()}`;
  const page = useLoad(key, () => api.machines(machinesQuery(place.query)), ["machines"]);
  const channels = useLoad("channels", api.channels, ["channels"]).data?.channels ?? [];
  const groups = useLoad("groups", api.groups).data?.groups ?? [];
  const releases = useLoad("releases", api.releases, ["releases"]).data?.releases;
  const versions = useMemo(() => [...new Set((releases ?? []).map((r) => r.version))].sort((a, b) => compareVersions(b, a)), [releases]);
  const set = (name: string) => (v: string) => filter({ [name]: v, after: "" });
  const filtered = machineFilters.some((n) => q[n]);
  const unique = (all: string[]) => [...new Set(all)].map((v) => [v, v] as const);
  const seen = q.silent ? "fell:1" : q.silent_for ? `silent:${q.silent_for}` : q.seen_within ? `seen:${q.seen_within}` : "";

  return (
    <Page title="Machines" lead={page.data?.total != null ? plural(page.data.total, "machine") + (q.retired ? " retired" : "") : undefined}>
      <div class="filters" role="search" aria-label="Machines">
        <Search label="Id, alias or address" value={q.text} set={set("text")} />
        <Pick label="State" value={q.state} set={set("state")} options={[...machineStateNames, [updatingStates, "Updating: any of them"]]} />
        <Pick label="Channel" value={q.channel} set={set("channel")} options={unique(channels.map((c) => c.name))} />
        {versions.length > mostToPick ? <TextPick label="Version" value={q.version} set={set("version")} list={versions.slice(0, mostToPick)} />
          : <Pick label="Version" value={q.version} set={set("version")} options={unique(versions)} />}
        {(groups.length > 0 || q.group) && <Pick label="Group" value={q.group} set={set("group")} options={unique(groups.map((g) => g.name))} />}
        <TextPick label="Platform" value={q.platform} set={set("platform")} list={[...platforms(page.data?.machines)]} />
        <Pick label="Last seen" value={seen} set={(v) => {
          const [kind, d] = v.split(":");
          filter({ silent_for: kind === "silent" ? d : "", seen_within: kind === "seen" ? d : "", silent: kind === "fell", after: "" });
        }} options={[["seen:1h", "Within 1 hour"], ["seen:24h", "Within 24 hours"], ["silent:24h", "Not for 24 hours"], ["silent:48h", "Not for 2 days"], ["silent:168h", "Not for 7 days"], ["fell:1", "Silent in a rollout"]]} />
        <Check label="Retired" checked={q.retired === "1"} set={(on) => filter({ retired: on, after: "" })} />
        {filtered && <a class="button small" href={href("/machines")}>Clear</a>}
      </div>
      <Card flush>
        <Show of={page} rows={10}>
          {(d) => d.machines.length === 0
            ? filtered
              ? <Empty icon="search" title="No machine matches"><a href={href("/machines")}>Clear the filters</a> to see all.</Empty>
              : <Empty icon="machines" title="No machine has asked yet">A machine appears here with its first check for an update. Give it this server's address with the credential <code>semper.update.toml</code>, or try one in a virtual machine: <code>semper vm run out/semper-1.0.0 --server {location.origin}</code></Empty>
            : <MachineTable machines={d.machines} caption="Machines, by id" />}
        </Show>
      </Card>
      <Pages list={`machines ${JSON.stringify(q)}`} at={after} next={page.data?.next} to={(at) => href("/machines", { ...q, after: at })} />
    </Page>
  );
}

const known = new Set<string>();
/** The platforms that were seen so far, as suggestions: a list of all would be a look at every machine. */
function platforms(machines: Machine[] | undefined): Set<string> {
  for (const m of machines ?? []) if (m.platform) known.add(m.platform);
  return known;
}

export function MachineLink({ m }: { m: { id: string; alias?: string } }) {
  return (
    <a class="machine" href={href(`/machines/${encodeURIComponent(m.id)}`)}>
      {m.alias && <span class="alias">{m.alias}</span>}
      <Id text={m.id} />
    </a>
  );
}

/** What a list of machines is about: all of them, what failed on some, or since when some are silent. */
type About = "all" | "failed" | "silent";

export function MachineTable({ machines, caption, about = "all" }: { machines: readonly Machine[]; caption: string; about?: About }) {
  const machine: Column<Machine> = { name: "Machine", grow: true, cell: (m) => <MachineLink m={m} /> };
  const short: Column<Machine> = { name: "Machine", cell: (m) => <a class="title one-line" href={href(`/machines/${encodeURIComponent(m.id)}`)} title={m.id}>{m.alias || <Id text={m.id} />}</a> };
  const seen: Column<Machine> = { name: "Last seen", cell: (m) => <Time at={m.last_seen} /> };
  const columns: Record<About, Column<Machine>[]> = {
    all: [
      machine,
      { name: "State", cell: (m) => <MachineState state={m.state} /> },
      { name: "Version", cell: (m) => <Versions m={m} /> },
      { name: "Channel", cell: (m) => <>{m.channel} <span class="muted">{m.arch}</span></> },
      { name: "Platform", wide: true, cell: (m) => (m.platform ? <span class="clip platform" title={m.platform}>{m.platform}</span> : <span class="muted">unknown</span>) },
      seen,
    ],
    failed: [
      short,
      { name: "Failed", cell: (m) => <ReleaseLink arch={m.arch} v={m.target} none="unknown" /> },
      { name: "Why", grow: true, cell: (m) => <span class="clamp" title={m.detail}><Words text={m.detail} /></span> },
      { name: "Since", cell: (m) => <Time at={m.state_since} /> },
    ],
    silent: [short, { name: "Version", cell: (m) => <Versions m={m} /> }, seen],
  };
  return <Table caption={caption} rows={machines} id={(m) => m.id} columns={columns[about]} />;
}

function Versions({ m }: { m: Machine }) {
  const on = m.target && m.target !== m.version && m.state !== "complete" && m.state !== "unknown";
  return (
    <span class="versions"><ReleaseLink arch={m.arch} v={m.version} none="unknown" />{on && <><span class="muted" aria-label={m.state === "failed" ? "failed:" : "to"}> → </span><ReleaseLink arch={m.arch} v={m.target} /></>}</span>
  );
}
