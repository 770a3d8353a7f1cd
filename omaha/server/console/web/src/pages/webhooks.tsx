// Webhooks: programs that are told when a rollout halts or ends, a release is withdrawn, machines go silent.
import { useState } from "preact/hooks";
import * as api from "../api/calls";
import type { Webhook } from "../api/types";
import { ask } from "../components/ask";
import { Check, Text } from "../components/fields";
import { Icon } from "../components/icons";
import { Card, Empty, Show } from "../components/page";
import { Table } from "../components/table";
import { say } from "../components/toast";
import { Status, Time } from "../components/values";
import { newKey, Problem } from "../api/client";
import { plural, time } from "../lib/format";
import { useLoad } from "../lib/load";
import { Secret } from "./secret";

const events = [["halt", "A rollout halts"], ["done", "A rollout is done"], ["withdrawn", "A release is withdrawn"], ["silent", "Machines go silent"]] as const;

export function WebhooksCard() {
  const hooks = useLoad("webhooks", api.webhooks, ["audit"]);
  const [secret, setSecret] = useState("");
  const test = (h: Webhook) => void api.testWebhook(h.id, { key: newKey() }).then(() => { say("A test was sent."); hooks.reload(); }, (e: unknown) => say(e instanceof Problem ? e.message : String(e), "warn"));
  return (
    <Card title="Webhooks" flush aside={<button type="button" class="button small" onClick={() => askHook((s) => { setSecret(s); hooks.reload(); })}><Icon name="plus" />New webhook</button>}>
      {secret && <Secret what="The secret that signs its messages" text={secret} close={() => setSecret("")} />}
      <Show of={hooks}>
        {(d) => d.webhooks.length === 0 ? <Empty icon="alert" title="Nobody is told yet">A webhook is an address of yours that the server tells of halts, ends, withdrawals and silence. Messages are signed, and tried again until they arrive.</Empty>
          : <Table caption="Webhooks" rows={d.webhooks} id={(h) => h.id} columns={[
            { name: "Address", grow: true, cell: (h) => <span class="mono break">{h.url}</span> },
            { name: "Told of", cell: (h) => <span class="marks told">{h.events.map((e) => <span key={e} class="tag">{e}</span>)}</span> },
            { name: "Last", cell: (h) => <Last h={h} /> },
            { name: "Actions", bare: true, cell: (h) => (
              <span class="row-acts">
                <button type="button" class="button small" aria-label={`Test ${h.url}`} onClick={() => test(h)}>Test</button>
                <button type="button" class="button small" aria-label={`Remove ${h.url}`} onClick={() => ask({
                  title: "Remove this webhook?", what: <p><span class="mono break">{h.url}</span> is told nothing any more{h.waiting > 0 && <>, and {plural(h.waiting, "message")} that wait for it are dropped</>}.</p>, act: "Remove", danger: true,
                  run: () => api.removeWebhook(h.id), done: "Removed.", after: hooks.reload,
                })}>Remove</button>
              </span>) },
          ]} />}
      </Show>
    </Card>
  );
}

function Last({ h }: { h: Webhook }) {
  const l = h.last;
  return (
    <>
      {!l || !time(l.at) ? <span class="muted">nothing sent yet</span>
        : l.status >= 200 && l.status < 300 ? <><Status tone="good" icon="check">{l.status}</Status> <Time at={l.at} /></>
          : <><Status tone="bad" icon="cross" title={l.error}>{l.status || "No answer"}</Status> <Time at={l.at} />{l.error && <span class="under">{l.error}</span>}</>}
      {h.waiting > 0 && <span class="under">{plural(h.waiting, "message")} waiting</span>}
    </>
  );
}

function askHook(then: (secret: string) => void): void {
  let url = "https://", chosen: string[] = events.map(([e]) => e), secret = "";
  const draw = () => ask({
    title: "Make a webhook", what: <p>Its secret is shown once; with it the receiver checks that a message is this server's.</p>,
    fields: <>
      <Text label="Address" type="url" mono value={url} set={(v) => { url = v.trim(); draw(); }} required maxLength={2000} />
      <fieldset class="checks"><legend>Told of</legend>{events.map(([e, text]) => <Check key={e} label={text} checked={chosen.includes(e)} set={(on) => { chosen = on ? [...chosen, e] : chosen.filter((c) => c !== e); draw(); }} />)}</fieldset>
    </>,
    ready: () => URL.canParse(url) && chosen.length > 0, act: "Make it", run: async (_, key) => { secret = (await api.newWebhook(url, chosen, { key })).data.secret ?? ""; }, after: () => then(secret),
  });
  draw();
}
