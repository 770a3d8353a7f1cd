// What can be done with a release. Each asks once.
import * as api from "../api/calls";
import type { Channel, Release } from "../api/types";
import { ask } from "../components/ask";
import { Select } from "../components/fields";
import { channelsOf } from "./releases";

export function askWithdraw(r: Release, etag: string, reload: () => void): void {
  ask({
    title: `Withdraw ${r.version}?`,
    what: <><p>From now on {r.version} for {r.arch} is offered to nobody, its payload is not served, and its rollouts are aborted. Channels that have it offer nothing until they get another release.</p><p>Machines that run it keep it.</p></>,
    act: "Withdraw", danger: true, reason: "needed", typed: r.version,
    run: (reason) => api.withdraw(r.arch, r.version, reason, { etag }), done: `${r.version} is withdrawn.`, after: reload, changed: reload,
  });
}

export function askRestore(r: Release, etag: string, reload: () => void): void {
  ask({
    title: `Restore ${r.version}?`, what: <p>It is offered again where channels have it. Rollouts that ended with the withdrawal stay over.</p>,
    act: "Restore", reason: "wanted", run: (reason) => api.restore(r.arch, r.version, reason, { etag }), done: `${r.version} is offered again.`, after: reload, changed: reload,
  });
}

const roads = [["", "Nothing special"], ["floor", "A floor: older machines get it before anything newer"], ["dead-end", "A dead end: whoever runs it gets nothing newer by itself"]] as const;

export function askMark(r: Release, etag: string, reload: () => void): void {
  let road = r.road ?? "";
  const draw = () => ask({
    title: `What is ${r.version} on the way to newer ones?`, what: <p>The owners of machines at a dead end are told the reason.</p>,
    fields: <Select label="Mark" value={road} set={(v) => { road = v; draw(); }} options={roads} />,
    reason: road === "dead-end" ? "needed" : "wanted", act: "Mark", run: (reason) => api.markRelease(r.arch, r.version, road, reason, { etag }), done: "Marked.", after: reload, changed: reload,
  });
  draw();
}

/** Sets a channel, which gives the release to all its machines at once: a rollout is what steps are for. */
export function askPromote(r: Release, channels: readonly Channel[], reload: () => void, chosen = ""): void {
  const mine = channelsOf(channels, r);
  const others = channels.filter((c) => c.arch === r.arch && !mine.includes(c));
  let name = chosen || others[0]?.name || "";
  const draw = () => {
    const channel = channels.find((c) => c.arch === r.arch && c.name === name);
    ask({
      title: `Set a channel to ${r.version}`,
      what: <p>All machines of the channel are offered {r.version} at once, from their next check on{channel?.version && <>, instead of {channel.version}</>}. A rollout does the same in steps, and stops by itself when machines fail.</p>,
      fields: <Select label="Channel" value={name} set={(v) => { name = v; draw(); }} options={others.map((c) => [c.name, c.version ? `${c.name} (now ${c.version})` : `${c.name} (empty)`] as const)} />,
      ready: () => name !== "", act: name ? `Set ${name}` : "Set", typed: name,
      run: () => api.setChannel(name, r.arch, r.version, { etag: channel?.etag }), done: `Channel ${name} offers ${r.version}.`, after: reload, changed: reload,
    });
  };
  draw();
}
