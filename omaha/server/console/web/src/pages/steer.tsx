// Steering a rollout: each asks once, and says what it will do.
import type { ComponentChildren } from "preact";
import * as api from "../api/calls";
import type { Rollout } from "../api/types";
import { ask } from "../components/ask";
import { number, percent, plural } from "../lib/format";

export type Verb = "start" | "pause" | "resume" | "abort";

export function askSteer(r: Rollout, verb: Verb, etag: string, reload: () => void): void {
  const c = r.counted.all;
  const told: Record<Verb, { title: string; what: ComponentChildren; act: string; done: string }> = {
    start: {
      title: `Start the rollout of ${r.version}?`,
      what: <p>{r.plan.canary?.group
        ? <>Machines of group <strong>{r.plan.canary.group}</strong> in channel {r.channel} are given {r.version} from now on. All others follow when these are healthy.</>
        : <>Machines of channel <strong>{r.channel}</strong> are given {r.version} from now on, without canaries, as the plan has it.</>}</p>,
      act: "Start", done: "Started.",
    },
    pause: {
      title: `Pause the rollout of ${r.version}?`,
      what: <p>No further machine is given {r.version}, and the plan's clock stands still. {c.in_flight > 0 ? `${plural(c.in_flight, "machine")} on the way may still finish.` : ""} It can be resumed at any time.</p>,
      act: "Pause", done: "Paused.",
    },
    resume: {
      title: `Resume the rollout of ${r.version}?`,
      what: <p>It goes on from {percent(r.reached)}. {r.state === "halted" && <>It stopped by itself after {plural(c.failed + c.silent, "failure")}; those do not count any more, failures from now on do.</>}</p>,
      act: "Resume", done: "Resumed.",
    },
    abort: {
      title: r.state === "draft" ? `Discard the plan for ${r.version}?` : `Abort the rollout of ${r.version}?`,
      what: r.state === "draft" ? <p>The draft is over. No machine was given anything.</p>
        : <><p>It ends for good: it cannot be resumed, only planned anew. Channel <strong>{r.channel}</strong> stays with the release that it has.</p><p>{number(c.complete)} machines have {r.version} and keep it{c.in_flight > 0 && <>; {plural(c.in_flight, "machine")} on the way may still finish</>}.</p></>,
      act: r.state === "draft" ? "Discard" : "Abort", done: r.state === "draft" ? "Discarded." : "Aborted.",
    },
  };
  ask({
    ...told[verb], danger: verb === "abort", reason: verb === "start" ? "wanted" : verb === "abort" && r.state !== "draft" ? "needed" : "wanted",
    ...(verb === "abort" && r.state !== "draft" ? { typed: r.version } : {}),
    run: (reason, key) => api.steer(r.id, verb, reason, { etag, key }), after: reload, changed: reload,
  });
}
