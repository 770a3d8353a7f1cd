// One rollout: where it stands against its plan, why it stopped, which machines failed, and what can be done.
import * as api from "../api/calls";
import type { RolloutDetail } from "../api/types";
import { CountChart, ShareChart } from "../charts/progress";
import { Curve } from "../charts/curve";
import { Icon } from "../components/icons";
import { Card, Empty, Fact, Facts, Page, Show } from "../components/page";
import { More, mostOf } from "../components/pages";
import { Table } from "../components/table";
import { Num, ReleaseLink, RolloutState, Status, Time } from "../components/values";
import { Who, Words } from "../components/words";
import { capital, number, percent } from "../lib/format";
import { useLoad } from "../lib/load";
import { href, type Place } from "../lib/router";
import { may } from "../lib/session";
import { MachineLink } from "./machines";
import { PlanWords } from "./plan-words";
import { openState, Progress } from "./rollouts";
import { askSteer } from "./steer";

const topics = ["rollouts", "machines"] as const;

export function RolloutPage({ id, place }: { id: string; place: Place }) {
  const rollout = useLoad(`rollout ${id}`, () => api.rollout(id), topics);
  const r = rollout.data;
  const progress = useLoad(r && r.state !== "draft" ? `progress ${id}` : "", () => api.progress(id), topics);
  const p = progress.data;
  return (
    <Page title={r ? `${r.version} to ${r.channel}` : `Rollout ${id}`} up={{ text: "Rollouts", href: href("/rollouts") }}
      heading={r && <><span class="version">{r.version}</span> to {r.channel}</>}
      lead={r && <span class="lead-row"><RolloutState state={r.state} /><span>since <Time at={r.since} />{r.by && <> by <Who text={r.by} /></>}</span><span class="muted">{r.arch} · rollout {r.id}</span></span>}
      actions={r && may("operator") && <Verbs r={r} etag={rollout.etag} reload={rollout.reload} />}>
      <Show of={rollout} rows={8}>
        {(r) => (
          <>
            <Explain r={r} />
            {r.state !== "draft" && <Numbers r={r} />}
            <div class="columns">
              <div class="column-main">
                {r.state === "draft"
                  ? <Card title="What the plan would do"><Curve label="Share of the machines over time, by the plan" stairs={(r.plan.waves?.length ?? 0) > 0} machines={r.preview.at(-1)?.machines ?? 0}
                    points={r.preview.map((x) => ({ at: x.after_ns / 1e6, share: x.share }))} end={Math.max(...r.preview.map((x) => x.after_ns / 1e6), 3600e3)} /></Card>
                  : <>
                    <Card title="Progress against the plan"><Show of={progress}>{(p) => p.times.length > 1 ? <ShareChart p={p} /> : <Empty icon="rollouts" title="No samples yet"><Progress r={r} /></Empty>}</Show></Card>
                    {p && p.times.length > 1 && <Card title="Machines"><CountChart p={p} /></Card>}
                  </>}
                <Card title={<>Failures {r.failures.length > 0 && <span class="count">{number(Math.max(r.failures.length, counted(r)))}</span>}</>} flush>
                  {r.failures.length === 0 ? <Empty icon="check" title="No machine failed in this rollout" /> : <Failures r={r} most={mostOf(place)} />}
                </Card>
              </div>
              <div class="column-side">
                <Card title="Plan"><PlanWords plan={r.plan} /></Card>
                <Card title="About">
                  <Facts>
                    <Fact name="Release"><ReleaseLink arch={r.arch} v={r.version} /></Fact>
                    <Fact name="Channel"><a href={href("/channels")}>{r.channel}</a> <span class="muted">{r.arch}</span></Fact>
                    <Fact name="Planned"><Time at={r.created} /> by <Who text={r.created_by} /></Fact>
                    <Fact name="History"><a href={href("/audit", { text: r.version })}>In the audit log</a></Fact>
                  </Facts>
                </Card>
              </div>
            </div>
          </>
        )}
      </Show>
    </Page>
  );
}

function Verbs({ r, etag, reload }: { r: RolloutDetail; etag: string; reload: () => void }) {
  const button = (verb: "start" | "pause" | "resume" | "abort", text: string, kind = "") => (
    <button key={verb} type="button" class={`button ${kind}`} onClick={() => askSteer(r, verb, etag, reload)}>{text}</button>
  );
  if (!openState(r.state)) return null;
  return (
    <>
      {button("abort", r.state === "draft" ? "Discard" : "Abort", "quiet-danger")}
      {r.state === "draft" && button("start", "Start", "primary")}
      {(r.state === "canary" || r.state === "ramping") && button("pause", "Pause", "primary")}
      {(r.state === "paused" || r.state === "halted") && button("resume", "Resume", "primary")}
    </>
  );
}

/** A halt and a pause explain themselves, before anything else. */
function Explain({ r }: { r: RolloutDetail }) {
  if (r.state === "halted") {
    const [gist, ...rest] = r.why.split(": ");
    return (
      <section class="why bad" aria-labelledby="halt">
        <h2 id="halt" class="why-head"><Icon name="stop" /><span>It stopped by itself <Time at={r.since} /></span></h2>
        <p class="why-text">{capital(gist ?? "")}.{r.failures.length === 0 && rest.length > 0 ? ` ${rest.join(": ")}` : ""}</p>
        {r.failures.length > 0 && (
          <ul class="why-machines">
            {r.failures.slice(0, 5).map((f) => <li key={f.machine}><a class={f.alias ? undefined : "mono"} href={href(`/machines/${encodeURIComponent(f.machine)}`)} title={f.machine}>{f.alias || f.machine}</a><span class="clip" title={f.why}><Words text={f.why || f.step} /></span></li>)}
          </ul>
        )}
        <p class="why-foot"><span>Nobody is given {r.version} until a person decides. Machines that have it keep it. Look at the machines below; then resume, and failures count anew from then on, or abort.</span></p>
      </section>
    );
  }
  if (r.state === "paused" || r.state === "aborted") {
    return (
      <section class="why" aria-labelledby="stand">
        <h2 id="stand" class="why-head"><Icon name={r.state === "paused" ? "pause" : "cross"} />{r.state === "paused" ? "Paused" : "Aborted"}{r.by && <> by <Who text={r.by} /></>}</h2>
        <p class="why-text">{r.why ? capital(r.why) : "No reason was given."}</p>
      </section>
    );
  }
  return null;
}

function Numbers({ r }: { r: RolloutDetail }) {
  const c = r.counted.all, k = r.counted.canary;
  const tile = (name: string, n: number, tone = "", part = "") => <li class={n > 0 ? tone : ""}><div><span class="tile-name">{name}</span><span class="tile-n"><Num n={n} /></span><span class="tile-part">{part}</span></div></li>;
  const known = c.complete + c.failed + c.silent;
  const canary = (n: number) => (r.plan.canary?.group && n > 0 ? `${number(n)} canaries` : "");
  return (
    <ul class="tiles" aria-label="Machines of this rollout">
      <li><div><span class="tile-name">Reached</span><span class="tile-n num">{percent(r.reached)}</span><span class="tile-part">of the machines</span></div></li>
      {tile("Given it", c.granted, "", canary(k.granted) || "machines")}
      {tile("Updating", c.in_flight, "active", canary(k.in_flight))}
      {tile("Healthy", c.complete, "good", canary(k.complete))}
      {tile("Failed", c.failed, "bad", c.failed > 0 ? `${percent(c.failed / known)} of known` : "")}
      {tile("Silent", c.silent, "warn", c.silent > 0 ? `${percent(c.silent / known)} of known` : "")}
    </ul>
  );
}

const counted = (r: RolloutDetail) => r.counted.all.failed + r.counted.all.silent;
const mostTold = 1000; // failures, by the server: the latest

function Failures({ r, most }: { r: RolloutDetail; most: number }) {
  return (
    <>
      <Table caption="Machines that failed in this rollout, the latest first" rows={r.failures.slice(0, most)} id={(f) => f.machine} columns={[
        { name: "Machine", cell: (f) => <MachineLink m={{ id: f.machine, alias: f.alias }} /> },
        { name: "What", cell: (f) => <><Status tone={f.step === "silent" ? "warn" : "bad"} icon={f.step === "silent" ? "silent" : "cross"}>{f.step === "silent" ? "Silent" : "Failed"}</Status>{f.canary && <> <span class="tag">canary</span></>}</> },
        { name: "Why", grow: true, cell: (f) => <span class="break"><Words text={f.why} /></span> },
        { name: "When", cell: (f) => <Time at={f.at} /> },
      ]} />
      <More of={r.failures.length} most={most} />
      {r.failures.length >= mostTold && counted(r) > r.failures.length && <p class="pages muted">These are the latest {number(r.failures.length)}. <a href={href("/machines", { state: "failed" })}>All machines that failed</a></p>}
    </>
  );
}
