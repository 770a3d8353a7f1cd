// Planning a rollout: a form, and beside it what the plan would do, before it does it.
import { useEffect, useRef, useState } from "preact/hooks";
import * as api from "../api/calls";
import { newKey, Problem } from "../api/client";
import type { NewRollout } from "../api/types";
import { ask } from "../components/ask";
import { Choice, DurationField, NumberField, Select, Text } from "../components/fields";
import { Icon } from "../components/icons";
import { Card, Empty, Page } from "../components/page";
import { say } from "../components/toast";
import { zone } from "../lib/format";
import { useLoad } from "../lib/load";
import { careful, planOf, unreadable, type PlanForm, type Spread } from "../lib/plan-form";
import { go, href, type Place } from "../lib/router";
import { may, useMe } from "../lib/session";
import { compareVersions } from "../lib/versions";
import { PlanPreview } from "./plan-preview";

export function NewRolloutPage({ place }: { place: Place }) {
  const me = useMe();
  const releases = useLoad("releases", api.releases, ["releases"]).data?.releases ?? [];
  const channels = useLoad("channels", api.channels, ["channels"]).data?.channels ?? [];
  const groups = useLoad("groups", api.groups).data?.groups ?? [];
  const [form, setForm] = useState<PlanForm>(() => ({
    ...careful, version: place.query.get("version") ?? "", channel: place.query.get("channel") ?? "", arch: place.query.get("arch") ?? "amd64", canaryGroup: place.query.get("group") ?? "",
  }));
  const [problem, setProblem] = useState<Problem>();
  const [busy, setBusy] = useState(false);
  const set = <K extends keyof PlanForm>(name: K) => (v: PlanForm[K]) => { setForm((f) => ({ ...f, [name]: v })); setProblem(undefined); };

  const setWindows = (windows: string) => { setForm((f) => ({ ...f, windows, zone: f.zone || zone() })); setProblem(undefined); };

  const offered = releases.filter((r) => r.arch === form.arch && !r.withdrawn?.match(/^[^0]/)).map((r) => r.version).sort((a, b) => compareVersions(b, a));
  const names = channels.filter((c) => c.arch === form.arch);
  useEffect(() => {
    setForm((f) => ({ ...f, version: f.version || offered[0] || "", channel: f.channel || (names.find((c) => c.name === "stable") ?? names[0])?.name || "" }));
  }, [offered.length, names.length]);

  const body: NewRollout = { version: form.version, channel: form.channel, arch: form.arch, plan: planOf(form), start: false };
  const ready = form.version !== "" && form.channel !== "" && !unreadable(form);
  const text = JSON.stringify(body);
  const key = useRef({ text: "", key: "" });
  const keyFor = (what: string) => {
    if (key.current.text !== what) key.current = { text: what, key: newKey() };
    return key.current.key;
  };

  const draft = async () => {
    setBusy(true);
    setProblem(undefined);
    try {
      const { data } = await api.planRollout(body, { key: keyFor(text) });
      say("Kept as a draft.");
      go(href(`/rollouts/${data.id}`));
    } catch (e) {
      setProblem(e instanceof Problem ? e : new Problem(0, "Failed", String(e), ""));
    } finally {
      setBusy(false);
    }
  };
  const start = () => {
    let id = 0;
    ask({
      title: `Start the rollout of ${form.version}?`,
      what: <p>{form.canaryGroup ? <>Machines of group <strong>{form.canaryGroup}</strong> in channel {form.channel} are given {form.version} from now on; all others follow when these are healthy.</>
        : <>Machines of channel <strong>{form.channel}</strong> are given {form.version} from now on, without canaries{form.spread === "all" ? <>, <strong>all of them at once</strong></> : ""}.</>}</p>,
      act: "Start now", danger: !form.canaryGroup && form.spread === "all",
      run: async (_reason, k) => { id = (await api.planRollout({ ...body, start: true }, { key: k })).data.id; },
      done: "Started.", after: () => go(href(`/rollouts/${id}`)),
    });
  };

  if (me && !may("operator")) return <Page title="Plan a rollout" up={{ text: "Rollouts", href: href("/rollouts") }}><Empty icon="info" title="Operators plan rollouts">You are signed in as {me.role}, and may look.</Empty></Page>;
  return (
    <Page title="Plan a rollout" up={{ text: "Rollouts", href: href("/rollouts") }} lead="Nothing happens until it is started. The preview follows while you plan.">
      <div class="columns plan">
        <form class="column-main" onSubmit={(e) => { e.preventDefault(); if (ready) start(); }}>
          <Card title="What, and where">
            <div class="fields thirds">
              <Select label="Release" value={form.version} set={set("version")} options={[...(form.version ? [] : [["", "Choose one"] as const]), ...offered.map((v) => [v, v] as const)]} />
              <Select label="Channel" value={form.channel} set={set("channel")} options={names.map((c) => [c.name, c.version ? `${c.name} (now ${c.version})` : c.name] as const)} />
              <Select label="Architecture" value={form.arch} set={set("arch")} options={[["amd64", "amd64"], ["arm64", "arm64"]]} />
            </div>
          </Card>
          <Card title="Canaries first">
            <div class="fields">
              <Select label="Group" value={form.canaryGroup} set={set("canaryGroup")} options={[["", "No canaries"], ...groups.map((g) => [g.name, `${g.name} (${g.members})`] as const)]}
                hint={groups.length === 0 ? <>No group yet: <a href={href("/channels")}>make one</a>.</> : "These machines get it before all others."} />
              {form.canaryGroup && <>
                <DurationField label="For at least" value={form.canaryHealthy} set={set("canaryHealthy")} />
                <NumberField label="Healthy ones needed" value={form.canaryNeed} set={set("canaryNeed")} placeholder="all" hint="With the release." />
                <NumberField label="Failures that halt" value={form.canaryFailures} set={set("canaryFailures")} placeholder="1" hint="Of canaries alone." />
              </>}
            </div>
          </Card>
          <Card title="Then everybody else" aside={<Choice label="How it spreads" value={form.spread} set={(v) => set("spread")(v as Spread)} options={[["ramp", "Ramp"], ["waves", "Waves"], ["all", "All at once"]]} />}>
            {form.spread === "ramp" && <div class="fields">
              <DurationField label="Over" value={form.rampOver} set={set("rampOver")} hint="From nobody to everybody, evenly." />
              <NumberField label="Starting at" unit="%" step="any" max={100} value={form.rampStart} set={set("rampStart")} placeholder="0" hint="So many may have it at once." />
            </div>}
            {form.spread === "waves" && <Waves form={form} set={set("waves")} />}
            {form.spread === "all" && <p class="muted">Each machine gets it with its next check, within the limits below.</p>}
          </Card>
          <Card title="Stop by itself">
            <div class="fields">
              <NumberField label="At a share failed of" unit="%" step="any" max={100} value={form.haltPercent} set={set("haltPercent")} hint="Of the machines whose outcome is known." />
              <NumberField label="Once so many are known" value={form.haltSample} set={set("haltSample")} placeholder="20" hint="Before that a share says little." />
              <NumberField label="Or at failures" unit="machines" value={form.haltFailures} set={set("haltFailures")} placeholder="never" hint="Stops earlier than a share, early in a ramp." />
              <DurationField label="Silence is a failure after" value={form.silentAfter} set={set("silentAfter")} placeholder="1h" hint="After its reboot into the release." />
            </div>
          </Card>
          <Card title="Limits and windows">
            <div class="fields">
              <NumberField label="Updating at once" unit="machines" value={form.atOnce} set={set("atOnce")} placeholder="no limit" />
              <NumberField label="Given out" unit="machines" value={form.perPeriod} set={set("perPeriod")} placeholder="no limit" />
              {form.perPeriod && <DurationField label="In each" value={form.period} set={set("period")} />}
            </div>
            <div class="fields windows">
              <label class="field"><span>Windows, one a line</span>
                <textarea rows={2} class="mono" placeholder="Mon-Fri 09:00 8h" value={form.windows} spellcheck={false} onInput={(e) => setWindows(e.currentTarget.value)} />
                <span class="hint">Given out only then. Empty: at any time.</span>
              </label>
              {form.windows.trim() && <Text label="In the zone" value={form.zone} set={set("zone")} list={Intl.supportedValuesOf("timeZone")} />}
            </div>
          </Card>
          {problem && <div class="trouble" role="alert"><Icon name="alert" /><div><strong>{problem.title}</strong><p>{problem.message}</p></div></div>}
          <div class="form-foot">
            <a class="button" href={href("/rollouts")}>Cancel</a>
            <button type="button" class="button" disabled={!ready || busy} onClick={() => void draft()}>Keep as a draft</button>
            <button type="submit" class="button primary" disabled={!ready || busy}>Start…</button>
          </div>
        </form>
        <aside class="column-side sticky" aria-label="Preview"><PlanPreview body={ready && me ? body : undefined} stairs={form.spread !== "ramp"} /></aside>
      </div>
    </Page>
  );
}

function Waves({ form, set }: { form: PlanForm; set: (w: PlanForm["waves"]) => void }) {
  const change = (i: number, part: Partial<PlanForm["waves"][number]>) => set(form.waves.map((w, at) => (at === i ? { ...w, ...part } : w)));
  return (
    <div class="wave-list">
      {form.waves.map((w, i) => (
        <div class="wave" key={i}>
          <DurationField label={`Wave ${i + 1}, after`} value={w.after} set={(v) => change(i, { after: v })} />
          <NumberField label="reaches" unit="%" step="any" max={100} value={w.percent} set={(v) => change(i, { percent: v })} />
          <button type="button" class="ghost" aria-label={`Remove wave ${i + 1}`} disabled={form.waves.length === 1} onClick={() => set(form.waves.filter((_, at) => at !== i))}><Icon name="cross" /></button>
        </div>
      ))}
      <button type="button" class="button small" disabled={form.waves.length >= 100} onClick={() => set([...form.waves, { after: "48h", percent: "100" }])}><Icon name="plus" />Add a wave</button>
      {form.waves.at(-1)?.percent !== "100" && <p class="hint wrong">The last wave must reach 100 %.</p>}
    </div>
  );
}
