// Tokens of programs, and of people without OIDC.
import { useState } from "preact/hooks";
import * as api from "../api/calls";
import type { Role } from "../api/types";
import { ask } from "../components/ask";
import { Select, Text } from "../components/fields";
import { Icon } from "../components/icons";
import { Card, Empty, Show } from "../components/page";
import { Table } from "../components/table";
import { Time } from "../components/values";
import { useLoad } from "../lib/load";
import { roles } from "../lib/roles";
import { Secret } from "./secret";

export function TokensCard() {
  const tokens = useLoad("tokens", api.tokens, ["tokens"]);
  const [made, setMade] = useState("");
  return (
    <Card title="Tokens" flush aside={<button type="button" class="button small" onClick={() => askToken((t) => { setMade(t); tokens.reload(); })}><Icon name="plus" />New token</button>}>
      {made && <Secret what="The new token" text={made} close={() => setMade("")} />}
      <Show of={tokens}>
        {(d) => d.tokens.length === 0 ? <Empty icon="people" title="No token">A token is for a program: the pipeline that publishes, a dashboard that looks. It has one role, and is shown once.</Empty>
          : <Table caption="Tokens" rows={d.tokens} id={(t) => t.id} columns={[
            { name: "Label", grow: true, cell: (t) => <span class="title break">{t.label || <span class="muted">no label</span>}</span> },
            { name: "Role", cell: (t) => t.role },
            { name: "Id", cell: (t) => <code>{t.id}</code> },
            { name: "Made", cell: (t) => <Time at={t.created} /> },
            { name: "Actions", bare: true, cell: (t) => <span class="row-acts"><button type="button" class="button small" aria-label={`Revoke token ${t.label || t.id}`} onClick={() => ask({
              title: `Revoke token ${t.label || t.id}?`, what: <p>It is worthless at once, and so are the sessions of whoever signed in with it. Programs that use it are refused.</p>,
              act: "Revoke", danger: true, typed: t.id, run: () => api.revokeToken(t.id), done: "Revoked.", after: tokens.reload,
            })}>Revoke</button></span> },
          ]} />}
      </Show>
    </Card>
  );
}

function askToken(then: (token: string) => void): void {
  let role = "viewer", label = "", token = "";
  const draw = () => ask({
    title: "Make a token", what: <p>It is shown once. The server keeps only a hash of its secret.</p>,
    fields: <><Text label="Label" value={label} set={(v) => { label = v; draw(); }} required maxLength={100} hint="What it is for: it stands in the audit log." /><Select label="Role" value={role} set={(v) => { role = v; draw(); }} options={roles} /></>,
    ready: () => label.trim() !== "", act: "Make it", run: async (_, key) => { token = (await api.newToken(role as Role, label.trim(), { key })).data.token ?? ""; }, after: () => then(token),
  });
  draw();
}
