// One machine: why it is where it is, first of all; then what it is, and its history.
import * as api from "../api/calls";
import type { MachineDetail, MachineEvent } from "../api/types";
import { ask } from "../components/ask";
import { Select, Text } from "../components/fields";
import { Icon } from "../components/icons";
import { Card, Empty, Fact, Facts, Page, Show } from "../components/page";
import { Copy, MachineState, ReleaseLink, Time } from "../components/values";
import { Who, Words } from "../components/words";
import { capital, time } from "../lib/format";
import { useLoad } from "../lib/load";
import { href } from "../lib/router";
import { may } from "../lib/session";

export function MachinePage({ id }: { id: string }) {
  const machine = useLoad(`machine ${id}`, () => api.machine(id), ["machines", "rollouts", "channels", "releases"]);
  const m = machine.data;
  return (
    <Page title={m?.alias || id} up={{ text: "Machines", href: href("/machines") }} heading={<span class="break">{m?.alias || id}</span>}
      lead={m && <span class="lead-row"><MachineState state={m.state} /><span>seen <Time at={m.last_seen} /></span>{time(m.retired) && <span class="tag">retired</span>}</span>}
      actions={m && may("operator") && <Actions m={m} reload={machine.reload} />}>
      <Show of={machine} rows={6}>
        {(m) => (
          <>
            <WhyCard m={m} />
            <div class="columns">
              <div class="column-main">
                <Card title="History"><Timeline m={m} /></Card>
              </div>
              <div class="column-side">
                <Card title="About">
                  <Facts>
                    <Fact name="Id"><span class="mono break">{m.id}</span> <Copy text={m.id} what="the id" /></Fact>
                    <Fact name="Runs"><ReleaseLink arch={m.arch} v={m.version} none="unknown" /></Fact>
                    <Fact name="Channel">{m.channel} <span class="muted">{m.arch}</span></Fact>
                    {m.group && <Fact name="Group"><a href={href("/channels", { group: m.group })}>{m.group}</a></Fact>}
                    {m.pin && <Fact name="Pinned">{m.pin.version ? <>to <span class="version">{m.pin.version}</span></> : "where it is"}{m.pin.by && <> by <Who text={m.pin.by} /></>}{m.pin.reason && <>: {m.pin.reason}</>}</Fact>}
                    <Fact name="Platform">{m.platform || "unknown"}</Fact>
                    <Fact name="Address"><span class="mono">{m.address}</span></Fact>
                    <Fact name="First seen"><Time at={m.first_seen} />{m.first_version && <> with <span class="version">{m.first_version}</span></>}</Fact>
                    <Fact name="State since"><Time at={m.state_since} /></Fact>
                    {m.boot_id && <Fact name="Boot"><span class="mono break small">{m.boot_id}</span></Fact>}
                  </Facts>
                </Card>
                {m.failed_versions.length > 0 && (
                  <Card title="Failed here" aside={<span class="muted">not offered to it again</span>}>
                    <ul class="failed-here">
                      {[...m.failed_versions].reverse().map((f) => (
                        <li key={f.version + f.at}><p><ReleaseLink arch={m.arch} v={f.version} /> <span class="muted"><Time at={f.at} /></span></p><p class="break small">{f.reason}</p></li>
                      ))}
                    </ul>
                  </Card>
                )}
              </div>
            </div>
          </>
        )}
      </Show>
    </Page>
  );
}

function WhyCard({ m }: { m: MachineDetail }) {
  const w = m.why;
  const next = time(w.next);
  const settled = w.cause === "up-to-date";
  return (
    <section class={`why ${settled ? "good" : w.offer ? "active" : ["failed-before", "no-machine-id", "unknown-channel", "dead-end", "withdrawn"].includes(w.cause) ? "warn" : ""}`} aria-labelledby="why">
      <h2 id="why" class="why-head"><Icon name={settled ? "check" : w.offer ? "arrow" : "info"} />{w.offer ? <>It would be given {w.offer} now</> : settled ? "It is where it should be" : "It gets no update now"}</h2>
      <p class="why-text"><Words text={sentence(w.sentence)} /></p>
      {m.state === "failed" && m.detail && !w.sentence.includes(m.detail) && <p class="why-text"><strong>Its last try failed:</strong> <Words text={m.detail} /></p>}
      <p class="why-foot">
        {next && <span>Next chance <Time at={w.next} /></span>}
        {w.rollout ? <a href={href(`/rollouts/${w.rollout}`)}>Rollout {w.rollout}</a> : null}
        <span class="muted">rule <code>{w.cause}</code></span>
      </p>
    </section>
  );
}

function sentence(s: string): string { return s && capital(s) + (/[.!?]$/.test(s) ? "" : "."); }

function Timeline({ m }: { m: MachineDetail }) {
  const events = [...m.events].reverse();
  return (
    <ol class="timeline">
      {events.map((e, i) => (
        <li key={`${e.at} ${i}`} class={tone(e)}>
          <span class="timeline-dot"><Icon name={tone(e) === "bad" ? "cross" : tone(e) === "good" ? "check" : "dot"} /></span>
          <div>
            <p><Words text={sentence(e.sentence)} /></p>
            {e.reason && !e.sentence.includes(e.reason) && <p class="muted break">{e.reason}</p>}
            <p class="timeline-foot"><Time at={e.at} as="short" /> · <Time at={e.at} />{e.version && <> · ran <span class="version">{e.version}</span></>}{e.code ? <> · code {e.code}</> : null}</p>
          </div>
        </li>
      ))}
      <li>
        <span class="timeline-dot"><Icon name="ring" /></span>
        <div><p>Seen for the first time{m.first_version && <>, with <span class="version">{m.first_version}</span></>}.</p><p class="timeline-foot"><Time at={m.first_seen} as="short" /> · <Time at={m.first_seen} /></p></div>
      </li>
      {events.length === 0 && <li class="timeline-none"><Empty icon="info" title="It has reported no update yet" /></li>}
    </ol>
  );
}

// Type 3 is the end of an update; result 0 is an error. See docs/omaha.md.
function tone(e: MachineEvent): "good" | "bad" | "" { return e.result === 0 ? "bad" : e.type === 3 && e.result !== 1 ? "good" : ""; }

function Actions({ m, reload }: { m: MachineDetail; reload: () => void }) {
  const pinned = m.pin || m.why.cause === "pinned";
  return (
    <>
      {m.failed_versions.length > 0 && <button type="button" class="button" onClick={() => askRetry(m, reload)}>Retry failed versions</button>}
      <button type="button" class="button" onClick={() => askGroup(m, reload)}>Set group</button>
      {pinned && <button type="button" class="button" onClick={() => ask({
        title: "Unpin this machine?", what: <p>It has its channel's release again, from its next check on.</p>, act: "Unpin", run: () => api.unpin(m.id), done: "Unpinned.", after: reload,
      })}>Unpin</button>}
      <button type="button" class="button" onClick={() => askPin(m, reload)}>{pinned ? "Change the pin" : "Pin"}</button>
    </>
  );
}

function askRetry(m: MachineDetail, reload: () => void): void {
  const versions = m.failed_versions.map((f) => f.version);
  ask({
    title: "Retry what failed on this machine?",
    what: <>
      <p><span class="version">{versions.join(", ")}</span> may be offered to it again, from its next check on. Where nothing has changed it will fail again.</p>
      <p>The machine remembers failures too, and may refuse by itself: <code>semperctl update --retry</code> there.</p>
    </>,
    act: "Let it retry", run: () => api.forgetFailures(m.id), done: "It may retry.", after: reload,
  });
}

function askPin(m: MachineDetail, reload: () => void): void {
  let version = m.pin?.version ?? "";
  const draw = () => ask({
    title: "Pin this machine?",
    what: <p>It gets the version named here and no other, whatever its channel and rollouts say. Without one it stays where it is. It never goes back to an older version by this.</p>,
    fields: <Text label="Version" mono value={version} set={(v) => { version = v.trim(); draw(); }} hint="Empty: hold it where it is." />,
    reason: "wanted", act: version ? `Pin to ${version}` : "Hold it here", run: (reason) => api.pin(m.id, version, reason), done: "Pinned.", after: reload,
  });
  draw();
}

function askGroup(m: MachineDetail, reload: () => void): void {
  let group = m.group ?? "";
  void api.groups().then(({ data }) => {
    const draw = () => ask({
      title: "Put this machine into a group",
      what: <p>A machine is in one group at most. Groups are whom rollouts begin with.{data.groups.length === 0 && " There is none yet: make one on the page Channels."}</p>,
      fields: <Select label="Group" value={group} set={(v) => { group = v; draw(); }} options={[["", "None"], ...data.groups.map((g) => [g.name, g.name] as const)]} />,
      act: group ? `Put it into ${group}` : "Take it out", run: () => api.setMember(m.id, group), done: "Done.", after: reload,
    });
    draw();
  }, () => undefined);
}
