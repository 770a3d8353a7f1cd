// What an operator needs first: what waits for a person, what is moving, what went wrong; then the whole fleet.
import * as api from "../api/calls";
import type { Attention, Overview, Rollout } from "../api/types";
import { VersionsChart } from "../charts/versions";
import { Spark } from "../charts/curve";
import { Choice } from "../components/fields";
import { Icon, type IconName } from "../components/icons";
import { Card, Empty, Page, Show } from "../components/page";
import { Num, RolloutState, Status, updatingStates } from "../components/values";
import { Words } from "../components/words";
import { usualRange, versionsQuery } from "../lib/asks";
import { capital, number, percent, plural } from "../lib/format";
import { useLoad } from "../lib/load";
import { haveIt } from "../lib/progress";
import { filter, href, usePlace } from "../lib/router";
import { FirstRelease } from "./first-release";
import { MachineTable } from "./machines";
import { openState, Progress } from "./rollouts";

export function OverviewPage() {
  const all = useLoad("overview", api.overview, ["machines", "rollouts", "releases", "channels", "reboots"]);
  const fresh = all.data !== undefined && all.data.machines === 0 && all.data.retired === 0;
  return (
    <Page title="Overview">
      <Show of={all} rows={8}>
        {(o) => fresh ? <FirstRelease attention={o.attention ?? []} /> : (
          <>
            <Totals o={o} />
            <Needs all={o.attention ?? []} />
            <UnderWay rollouts={inOrder((o.rollouts ?? []).filter((r) => openState(r.state)))} />
            <VersionsOverTime o={o} />
            <div class="halves">
              <Card flush title={<>Failed <span class="count">{number(countOf(o, "failed"))}</span></>} aside={countOf(o, "failed") > 0 && <a href={href("/machines", { state: "failed" })}>All failed</a>}>
                {o.failed?.length ? <MachineTable about="failed" machines={o.failed} caption="Machines that failed, the latest first" /> : <Empty icon="check" title="No machine failed">A machine that cannot boot an update, or is not healthy with it, goes back by itself and is listed here.</Empty>}
              </Card>
              <Card flush title={<>Silent <span class="count">{number(silentOf(o))}</span></>} aside={silentOf(o) > 0 && <a href={href("/machines", { silent: true })}>All silent</a>}>
                {o.silent?.length ? <MachineTable about="silent" machines={o.silent} caption="Machines that were not heard of" /> : <Empty icon="check" title="Every machine was heard of">A machine that reboots into a release and says nothing for an hour counts as silent.</Empty>}
              </Card>
            </div>
          </>
        )}
      </Show>
    </Page>
  );
}

/** How many fell silent in the rollouts under way. */
const silentOf = (o: Overview) => (o.rollouts ?? []).reduce((sum, r) => sum + r.counted.all.silent, 0);

const countOf = (o: Overview, ...states: string[]) => (o.states ?? []).filter((s) => states.includes(s.state)).reduce((sum, s) => sum + s.machines, 0);

function Totals({ o }: { o: Overview }) {
  const updating = countOf(o, ...updatingStates.split(","));
  const failed = countOf(o, "failed");
  const tile = (name: string, n: number, to: string, tone: string, icon: IconName) => (
    <li class={n > 0 ? tone : ""}><a href={to}><span class="tile-name"><Icon name={icon} />{name}</span><span class="tile-n"><Num n={n} /></span><span class="tile-part">{o.machines > 0 && name !== "Machines" ? percent(n / o.machines) : o.retired > 0 ? `and ${number(o.retired)} retired` : "in the fleet"}</span></a></li>
  );
  return (
    <ul class="tiles" aria-label="Totals">
      {tile("Machines", o.machines, href("/machines"), "", "machines")}
      {tile("Updating", updating, href("/machines", { state: updatingStates }), "active", "half")}
      {tile("Failed", failed, href("/machines", { state: "failed" }), "bad", "cross")}
      {tile("Silent", silentOf(o), href("/machines", { silent: true }), "warn", "silent")}
    </ul>
  );
}

function Needs({ all }: { all: Attention[] }) {
  if (all.length === 0) {
    return <p class="calm"><Status tone="good" icon="check">Nothing needs you now</Status></p>;
  }
  const sorted = [...all].sort((a, b) => Number(b.severity === "high") - Number(a.severity === "high"));
  return (
    <Card title={<>Needs a person <span class="count">{all.length}</span></>} tone={sorted[0]?.severity === "high" ? "bad" : "warn"} flush>
      <ul class="needs" aria-live="polite">
        {sorted.map((a) => (
          <li key={a.kind + a.link + a.sentence}>
            <a href={local(a.link)}>
              <Status tone={a.severity === "high" ? "bad" : "warn"} icon={a.severity === "high" ? "stop" : "alert"}>{a.severity === "high" ? "Now" : "Look"}</Status>
              <span class="needs-text"><Words text={capital(a.sentence)} /></span>
              <Icon name="arrow" />
            </a>
          </li>
        ))}
      </ul>
    </Card>
  );
}

/** The server's links are paths of this console; anything else leads nowhere. */
const local = (link: string) => (link.startsWith("/") && !link.startsWith("//") ? link : "/");

/** Those that wait for a person first, then those that move. */
const order = ["halted", "canary", "ramping", "paused", "draft"];
const inOrder = (all: Rollout[]) => [...all].sort((a, b) => order.indexOf(a.state) - order.indexOf(b.state));

function UnderWay({ rollouts }: { rollouts: Rollout[] }) {
  return (
    <Card title={<>Rollouts under way {rollouts.length > 0 && <span class="count">{rollouts.length}</span>}</>} aside={<a href={href("/rollouts")}>All rollouts</a>} flush>
      {rollouts.length === 0
        ? <Empty icon="rollouts" title="No rollout is under way">A rollout brings a release to a channel's machines in steps, and stops by itself when it is bad. <a href={href("/rollouts/new")}>Plan one</a>.</Empty>
        : <ul class="under-way">{rollouts.map((r) => <UnderWayRow key={r.id} r={r} />)}</ul>}
    </Card>
  );
}

function UnderWayRow({ r }: { r: Rollout }) {
  const p = useLoad(r.state === "draft" ? "" : `progress ${r.id}`, () => api.progress(r.id), ["rollouts"]).data;
  return (
    <li>
      <div class="under-way-what">
        <a class="title" href={href(`/rollouts/${r.id}`)}><span class="version">{r.version}</span> to {r.channel} <span class="muted">{r.arch}</span></a>
        <RolloutState state={r.state} />
      </div>
      <div class="under-way-how">
        <Progress r={r} />
        {(r.state === "halted" || r.state === "paused") && r.why && <p class={`clip small ${r.state === "halted" ? "bad-words" : "muted"}`} title={r.why}>{r.state === "halted" ? r.why.split(": ")[0] : r.why}</p>}
      </div>
      <div class="under-way-spark">{p && p.times.length > 1 && <Spark planned={p.reached} reached={haveIt(p)} label={`May have it: ${percent(r.reached)}, have it: ${percent(haveIt(p).at(-1) ?? 0)}`} />}</div>
    </li>
  );
}

/** How many run each, in all channels, the commonest first. */
function byVersion(all: { version: string; machines: number }[]): [string, number][] {
  const sums = new Map<string, number>();
  for (const v of all) sums.set(v.version, (sums.get(v.version) ?? 0) + v.machines);
  return [...sums].sort((a, b) => b[1] - a[1]);
}

const ranges = [["24h", "24 h"], ["7d", "7 days"], ["30d", "30 days"], ["90d", "90 days"]] as const;

function VersionsOverTime({ o }: { o: Overview }) {
  const q = usePlace().query;
  const range = q.get("range") ?? usualRange, channel = q.get("channel") ?? "", arch = q.get("arch") ?? "";
  const chart = useLoad(`versions ${range} ${channel} ${arch}`, () => api.versionChart(versionsQuery(q)), ["machines"]);
  const unique = (all: string[]) => [...new Set(all)].filter(Boolean).sort().map((v) => [v, v] as const);
  const versions = o.versions ?? [];
  return (
    <Card title="Versions over time" aside={
      <span class="aside-row">
        <select aria-label="Channel" value={channel} onChange={(e) => filter({ channel: e.currentTarget.value })}><option value="">All channels</option>{unique(versions.map((v) => v.channel)).map(([v]) => <option key={v} value={v}>{v}</option>)}</select>
        {unique(versions.map((v) => v.arch)).length > 1 && <select aria-label="Architecture" value={arch} onChange={(e) => filter({ arch: e.currentTarget.value })}><option value="">All architectures</option>{unique(versions.map((v) => v.arch)).map(([v]) => <option key={v} value={v}>{v}</option>)}</select>}
        <Choice label="Range" value={range} set={(v) => filter({ range: v === usualRange ? "" : v })} options={ranges} />
      </span>
    }>
      <Show of={chart} rows={5}>
        {(c) => (c.times?.length ?? 0) > 1 ? <VersionsChart chart={c} />
          : <Empty icon="overview" title="Not enough samples yet">Every 15 minutes the server notes how many machines run which version. Now: {byVersion(versions).slice(0, 5).map(([v, n]) => `${v || "unknown"} on ${plural(n, "machine")}`).join(", ") || "none"}.</Empty>}
      </Show>
    </Card>
  );
}
