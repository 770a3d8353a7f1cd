// People who signed in, and their roles.
import * as api from "../api/calls";
import type { Person } from "../api/types";
import { ask } from "../components/ask";
import { Select } from "../components/fields";
import { Card, Empty, Show } from "../components/page";
import { Table } from "../components/table";
import { Id, Time } from "../components/values";
import { useLoad } from "../lib/load";
import { roles } from "../lib/roles";

export function PeopleCard() {
  const people = useLoad("people", api.people, ["tokens", "audit"]);
  return (
    <Card title="People" flush>
      <Show of={people}>
        {(d) => d.people.length === 0
          ? <Empty icon="people" title="Nobody has signed in as a person">With OIDC, people appear here when they sign in first, with the role that their groups give them.</Empty>
          : <Table caption="People" rows={d.people} id={(p) => p.id} columns={[
            { name: "Name", grow: true, cell: (p) => <><span class="title break">{p.name || p.id}</span>{p.name && <span class="under"><Id text={p.id} /></span>}</> },
            { name: "Role", cell: (p) => <>{p.role || <span class="muted">none</span>} <span class="muted">{p.role_from === "set" ? "set here" : p.role_from === "groups" ? "by groups" : p.role_from}</span></> },
            { name: "Last seen", cell: (p) => <Time at={p.last_seen} /> },
            { name: "Actions", bare: true, cell: (p) => (
              <span class="row-acts">
                <button type="button" class="button small" aria-label={`Role of ${p.name}`} onClick={() => askRole(p, people.reload)}>Role</button>
                <button type="button" class="button small" aria-label={`Remove ${p.name}`} onClick={() => ask({
                  title: `Remove ${p.name || p.id}?`, what: <p>All their sessions end at once. Whoever may sign in by OIDC can do so again: take them out of the groups there too.</p>,
                  act: "Remove", danger: true, typed: p.name || p.id, run: () => api.removePerson(p.id), done: "Removed.", after: people.reload,
                })}>Remove</button>
              </span>) },
          ]} />}
      </Show>
    </Card>
  );
}

function askRole(p: Person, reload: () => void): void {
  let role: string = p.role_from === "set" ? p.role : "";
  const draw = () => ask({
    title: `The role of ${p.name || p.id}`, what: <p>A role that is set here goes before the one that groups give. It counts from the next request on.</p>,
    fields: <Select label="Role" value={role} set={(v) => { role = v; draw(); }} options={[["", "As groups have it"], ...roles]} />,
    act: "Set", run: () => api.setRole(p.id, role), done: "Set.", after: reload,
  });
  draw();
}
