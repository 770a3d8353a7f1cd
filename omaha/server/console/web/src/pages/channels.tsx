// Channels, which machines follow, and groups, whom rollouts begin with. A group's machines are shown on the same page, under their own URL.
import * as api from "../api/calls";
import type { Channel, Group, Release } from "../api/types";
import { ask } from "../components/ask";
import { Select, Text } from "../components/fields";
import { Icon } from "../components/icons";
import { Card, Empty, Page, Show } from "../components/page";
import { Table } from "../components/table";
import { Pages } from "../components/pages";
import { Num, ReleaseLink, Status, Time } from "../components/values";
import { exact, number, plural } from "../lib/format";
import { useLoad } from "../lib/load";
import { filter, href, type Place } from "../lib/router";
import { may } from "../lib/session";
import { compareVersions } from "../lib/versions";
import { MachineLink } from "./machines";

export function ChannelsPage({ place }: { place: Place }) {
  const channels = useLoad("channels", api.channels, ["channels", "releases"]);
  const releases = useLoad("releases", api.releases, ["releases"]).data?.releases ?? [];
  const groups = useLoad("groups", api.groups, ["machines", "audit"]);
  const shown = place.query.get("group") ?? "";
  const rows = [...(channels.data?.channels ?? [])].sort((a, b) => Number(b.version !== "") - Number(a.version !== ""));
  return (
    <Page title="Channels and groups" lead="Machines follow a channel; who is in a group gets a rollout first.">
      <Card title="Channels" flush>
        <Show of={channels} rows={4}>
          {() => rows.length === 0 ? <Empty icon="channels" title="No channel">A channel is what machines follow, such as stable and beta. An application gets its channels when it is added.</Empty>
            : <Table caption="Channels" rows={rows} id={(c) => `${c.name} ${c.arch}`} columns={[
              { name: "Channel", cell: (c) => <a class="title" href={href("/machines", { channel: c.name })}>{c.name}</a> },
              { name: "Arch", cell: (c) => c.arch },
              { name: "Offers", grow: true, cell: (c) => <ReleaseLink arch={c.arch} v={c.version} none="nothing yet" /> },
              { name: "Since", cell: (c) => (c.version ? <Time at={c.updated} /> : "") },
              { name: "Freshness", cell: (c) => <Fresh c={c} /> },
              { name: "Actions", bare: true, cell: (c) => (
                <span class="row-acts">
                  {may("publisher") && <button type="button" class="button small" onClick={() => askSet(c, releases, channels.etag, channels.reload)} aria-label={`Set channel ${c.name} for ${c.arch}`}>Set</button>}
                  {may("operator") && <a class="button small" href={href("/rollouts/new", { channel: c.name, arch: c.arch })} aria-label={`Roll out to ${c.name} for ${c.arch}`}>Roll out</a>}
                </span>) },
            ]} />}
        </Show>
      </Card>
      <Card title="Groups" flush aside={may("operator") && <button type="button" class="button small" onClick={() => askGroup(groups.reload)}><Icon name="plus" />New group</button>}>
        <Show of={groups} rows={3}>
          {(d) => d.groups.length === 0 ? <Empty icon="machines" title="No group yet">A group is a name for some machines, such as the ones in the lab. A rollout's canaries are a group.</Empty>
            : <Table caption="Groups" rows={d.groups} id={(g) => g.name} columns={[
              { name: "Group", grow: true, cell: (g) => <a class="title" href={href("/channels", { group: g.name })} aria-current={g.name === shown ? "true" : undefined}>{g.name}</a> },
              { name: "Machines", num: true, cell: (g) => <Num n={g.members} /> },
              { name: "Made", cell: (g) => <Time at={g.created} /> },
              { name: "Actions", bare: true, cell: (g) => may("operator") && <span class="row-acts"><button type="button" class="button small" onClick={() => askForget(g, groups.reload, shown)} aria-label={`Delete group ${g.name}`}>Delete</button></span> },
            ]} />}
        </Show>
      </Card>
      {shown && <MembersCard key={shown} name={shown} after={place.query.get("after") ?? ""} />}
    </Page>
  );
}

const soon = 3 * 86400e3; // before a statement expires, as the server warns of it

/** What was stated last: machines complain once it has expired, or when an older one is shown to them. */
function Fresh({ c }: { c: Channel }) {
  const f = c.freshness;
  if (!f) return <span class="muted">not stated</span>;
  const left = Date.parse(f.expires) - Date.now();
  return (
    <>
      {left <= 0 ? <Status tone="bad" icon="cross">Expired <Time at={f.expires} /></Status>
        : left < soon ? <Status tone="warn" icon="alert">Expires <Time at={f.expires} /></Status> : <>expires <Time at={f.expires} /></>}
      <span class="under one-line" title={`Issued ${exact(new Date(f.issued))}`}>no. {number(f.sequence)} for {f.version}</span>
    </>
  );
}

function MembersCard({ name, after }: { name: string; after: string }) {
  const group = useLoad(`group ${name} ${after}`, () => api.group(name, after), ["machines", "audit"]);
  return (
    <Card title={<>Machines of {name}</>} flush aside={<span class="aside-row">
      {may("operator") && <button type="button" class="button small" onClick={() => askAdd(name, group.reload)}><Icon name="plus" />Add a machine</button>}
      <a class="button small" href={href("/channels")}>Close</a>
    </span>}>
      <Show of={group}>
        {(d) => (d.machines ?? []).length === 0 ? <Empty icon="machines" title="Nobody is in it">A machine can be put into it before it was ever seen.</Empty>
          : <>
            <Table caption={`Machines of group ${name}`} rows={(d.machines ?? []).map((id) => ({ id }))} id={(m) => m.id} columns={[
              { name: "Machine", grow: true, cell: (m) => <MachineLink m={m} /> },
              { name: "Actions", bare: true, cell: (m) => may("operator") && <span class="row-acts"><button type="button" class="button small" aria-label={`Take out ${m.id}, of ${name}`} onClick={() => ask({
                title: `Take it out of ${name}?`, what: <p>Machine <span class="mono break">{m.id}</span> is in no group then.</p>, act: "Take it out", run: () => api.setMember(m.id, ""), done: "Taken out.", after: group.reload,
              })}>Take out</button></span> },
            ]} />
            <Pages list={`group ${name}`} at={after} next={d.next} to={(at) => href("/channels", { group: name, after: at })} />
          </>}
      </Show>
    </Card>
  );
}

function askSet(c: Channel, releases: readonly Release[], etag: string, reload: () => void): void {
  const versions = releases.filter((r) => r.arch === c.arch && !r.withdrawn?.match(/^[^0]/)).map((r) => r.version).sort((a, b) => compareVersions(b, a));
  let version = versions.find((v) => v !== c.version) ?? "";
  const draw = () => ask({
    title: `Set channel ${c.name} for ${c.arch}`,
    what: <p>All its machines are offered the release at once, from their next check on{c.version && <>, instead of {c.version}</>}. A rollout does the same in steps.</p>,
    fields: <Select label="Release" value={version} set={(v) => { version = v; draw(); }} options={versions.map((v) => [v, v === c.version ? `${v} (as now)` : v] as const)} />,
    ready: () => version !== "" && version !== c.version, typed: c.name, act: version ? `Set to ${version}` : "Set",
    run: () => api.setChannel(c.name, c.arch, version, { etag: c.etag ?? etag }), done: `Channel ${c.name} offers ${version}.`, after: reload, changed: reload,
  });
  draw();
}

function askGroup(reload: () => void): void {
  let name = "";
  const draw = () => ask({
    title: "Make a group", what: <p>It is empty at first; machines are put into it one by one.</p>,
    fields: <Text label="Name" value={name} set={(v) => { name = v.trim(); draw(); }} required maxLength={64} hint="Letters, digits, dots and dashes." />,
    ready: () => name !== "", act: "Make it", run: () => api.putGroup(name), done: `Group ${name} is there.`, after: () => { reload(); filter({ group: name }, false); },
  });
  draw();
}

function askForget(g: Group, reload: () => void, shown: string): void {
  ask({
    title: `Delete group ${g.name}?`, what: <p>Its {plural(g.members, "machine")} are in no group then. Machines themselves are not touched.</p>, danger: true, ...(g.members > 0 ? { typed: g.name } : {}),
    act: "Delete", run: () => api.deleteGroup(g.name), done: "Deleted.", after: () => { if (g.name === shown) filter({ group: "" }); reload(); },
  });
}

function askAdd(group: string, reload: () => void): void {
  let id = "";
  const draw = () => ask({
    title: `Add a machine to ${group}`, what: <p>It leaves the group that it is in.</p>,
    fields: <Text label="Machine id" mono value={id} set={(v) => { id = v.trim(); draw(); }} required maxLength={128} />,
    ready: () => id !== "", act: "Add", run: () => api.setMember(id, group), done: "Added.", after: reload,
  });
  draw();
}
