// A plan in sentences.
import type { Plan } from "../api/types";
import { Fact, Facts } from "../components/page";
import { durationWords } from "../lib/duration";
import { number, plural } from "../lib/format";
import { href } from "../lib/router";

const has = (d: string | undefined) => d !== undefined && !/^(0s|0|)$/.test(d);

export function PlanWords({ plan }: { plan: Plan }) {
  const { canary: c = {}, waves = [], ramp: r = {}, limits: l = {}, windows: w = {}, halt: h = {} } = plan;
  return (
    <Facts>
      <Fact name="Canaries">{c.group
        ? <><a href={href("/channels", { group: c.group })}>{c.group}</a>: {c.need ? `${number(c.need)} of them healthy` : "each of them healthy"}{has(c.healthy) && <>, for {durationWords(c.healthy)} at least</>}; {plural(c.failures || 1, "failure")} {(c.failures || 1) === 1 ? "halts" : "halt"} it</>
        : "none"}</Fact>
      <Fact name="Then">{waves.length > 0
        ? <ol class="waves">{waves.map((x) => <li key={x.percent}><strong>{x.percent} %</strong> {has(x.after) ? <>after {durationWords(x.after)}</> : "at once"}</li>)}</ol>
        : has(r.over) ? <>evenly to everybody over {durationWords(r.over)}{r.start ? <>, from {r.start} % on</> : ""}</> : "everybody at once"}</Fact>
      <Fact name="Limits">{l.at_once || l.per_period
        ? [l.at_once ? `${number(l.at_once)} machines at once` : "", l.per_period ? `${number(l.per_period)} in ${durationWords(l.period)}` : ""].filter(Boolean).join(", ")
        : "none"}</Fact>
      <Fact name="Windows">{w.times?.length ? <>{w.times.map((x) => <span key={x} class="mono">{x} </span>)}<span class="muted">{w.zone || "UTC"}</span></> : "at any time"}</Fact>
      <Fact name="Halts">{h.failures || h.percent
        ? [h.failures ? `at ${plural(h.failures, "failure")}` : "", h.percent ? `at ${h.percent} % failed, once ${number(h.sample || 20)} outcomes are known` : ""].filter(Boolean).join(", or ")
        : <span class="warn-text">never by the fleet's failures</span>}{has(h.silent_after) ? <>; silence counts after {durationWords(h.silent_after)}</> : <>; silence counts after 1 h</>}</Fact>
    </Facts>
  );
}
