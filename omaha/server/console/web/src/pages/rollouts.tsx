// All rollouts, newest first.
import * as api from "../api/calls";
import type { Rollout } from "../api/types";
import { Choice } from "../components/fields";
import { Icon } from "../components/icons";
import { Card, Empty, Page, Show } from "../components/page";
import { More, mostOf } from "../components/pages";
import { Table } from "../components/table";
import { RolloutState, Time } from "../components/values";
import { Who } from "../components/words";
import { number, percent } from "../lib/format";
import { useLoad } from "../lib/load";
import { filter, href, type Place } from "../lib/router";
import { may } from "../lib/session";

export const openState = (state: string) => state !== "done" && state !== "aborted";

export function RolloutsPage({ place }: { place: Place }) {
  const which = place.query.get("state") ?? "";
  const all = useLoad("rollouts", api.rollouts, ["rollouts"]);
  const shown = (all.data?.rollouts ?? []).filter((r) => !which || (which === "open" ? openState(r.state) : !openState(r.state)));
  const most = mostOf(place);
  return (
    <Page title="Rollouts" lead="A release on its way to a channel's machines, in steps." actions={may("operator") && <a class="button primary" href={href("/rollouts/new")}><Icon name="plus" />Plan a rollout</a>}>
      <div class="filters"><Choice label="State" value={which} set={(v) => filter({ state: v })} options={[["", "All"], ["open", "Under way"], ["over", "Over"]]} /></div>
      <Card flush>
        <Show of={all} rows={6}>
          {() => shown.length === 0
            ? <Empty icon="rollouts" title={which ? "None" : "No rollout yet"}>Plan one: first the canaries, then waves or a ramp; it stops by itself when machines fail.</Empty>
            : <Table caption="Rollouts, newest first" rows={shown.slice(0, most)} id={(r) => r.id} columns={[
              { name: "Rollout", cell: (r) => <a class="title one-line" href={href(`/rollouts/${r.id}`)}><span class="version">{r.version}</span> to {r.channel}</a> },
              { name: "Arch", wide: true, cell: (r) => r.arch },
              { name: "State", cell: (r) => <RolloutState state={r.state} /> },
              { name: "Progress", grow: true, cell: (r) => <Progress r={r} /> },
              { name: "Since", cell: (r) => <Time at={r.since} /> },
              { name: "By", wide: true, cell: (r) => <span class="clip narrow"><Who text={r.created_by} /></span> },
            ]} />}
        </Show>
      </Card>
      <More of={shown.length} most={most} />
    </Page>
  );
}

/** How far a rollout is: the share reached, and what became of the machines that were given it. */
export function Progress({ r }: { r: Rollout }) {
  const c = r.counted.all, bad = c.failed + c.silent;
  const total = Math.max(c.granted, 1);
  const part = (n: number) => ({ width: `${((r.state === "done" ? 1 : r.reached) * 100 * n) / total}%` });
  return (
    <div class="progress">
      <div class="meter" role="meter" aria-label="Share reached" aria-valuemin={0} aria-valuemax={100} aria-valuenow={Math.round(r.reached * 100)} aria-valuetext={`${percent(r.reached)} reached`}>
        <span class="meter-reached" style={{ width: `${Math.max(r.reached * 100, c.granted ? 0.5 : 0)}%` }} />
        <span class="meter-good" style={part(c.complete)} />
        <span class="meter-bad" style={{ ...part(bad), left: part(c.complete).width }} />
      </div>
      <p class="progress-text">
        <span>{r.state === "draft" ? "not started" : r.state === "canary" ? "canaries first" : <><strong>{percent(r.reached)}</strong> reached</>}</span>
        {c.granted > 0 && <span>{number(c.complete)} of {number(c.granted)} healthy</span>}
        {c.in_flight > 0 && openState(r.state) && <span>{number(c.in_flight)} updating</span>}
        {bad > 0 && <span class="bad-text"><Icon name="cross" />{number(bad)} failed</span>}
      </p>
    </div>
  );
}
