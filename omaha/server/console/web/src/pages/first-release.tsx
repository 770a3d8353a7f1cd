// A server that was just started: the three commands that publish a first release, and what happens next.
import type { ComponentChildren } from "preact";
import * as api from "../api/calls";
import type { Attention } from "../api/types";
import { Icon } from "../components/icons";
import { Card } from "../components/page";
import { Copy } from "../components/values";
import { useLoad } from "../lib/load";
import { href } from "../lib/router";

export function FirstRelease({ attention }: { attention: Attention[] }) {
  const releases = useLoad("releases", api.releases, ["releases"]).data?.releases;
  const channels = useLoad("channels", api.channels, ["channels"]).data?.channels;
  const published = (releases?.length ?? 0) > 0, offered = channels?.some((c) => c.version) ?? false;
  const latest = releases?.at(-1)?.version ?? "1.0.0";
  return (
    <div class="teach">
      <p class="teach-lead">{published
        ? <>A release is here{offered ? ", and a channel offers it" : ", but no channel offers it yet"}. What is missing is a machine that asks.</>
        : "This server runs, and knows no release and no machine yet. Three commands, on the machine that builds, change that."}</p>
      {attention.filter((a) => a.kind !== "no-release").map((a) => <p key={a.sentence} class="teach-note"><Icon name="alert" />{a.sentence}</p>)}
      <ol class="steps">
        <Step n={1} done={published} title="Make keys" command="semper keys new --out keys">Machines take updates only from the keys of the image they run. Keep a copy offline.</Step>
        <Step n={2} done={published} title="Build a release" command={"semper build images/semper --version 1.0.0 --keys keys --out out"}>As root: Debian's maintainer scripts run in a chroot. The same recipe and lock give the same bytes.</Step>
        <Step n={3} done={published && offered} title="Publish it" command={`semper publish out/semper-${latest} --server ${location.origin} --channel stable \\\n    --token-file publish.token --key keys/payload-1.pem --key keys/payload-2.pem`}>
          The server left <code>publish.token</code> in its data folder at its first start; take it from there{published && !offered && <>, or <a href={href("/channels")}>set a channel</a> to what is published</>}.
        </Step>
        <Step n={4} done={false} title="Boot a machine" command={`semper vm run out/semper-${latest} --server ${location.origin} --disk-size 8G --persist machine.qcow2`}>A virtual machine for a try. It appears here with its first check, by itself.</Step>
      </ol>
    </div>
  );
}

function Step({ n, done, title, command, children }: { n: number; done: boolean; title: string; command: string; children: ComponentChildren }) {
  return (
    <li class={done ? "done" : undefined}>
      <span class="step-n" aria-hidden="true">{done ? <Icon name="check" /> : n}</span>
      <div class="step">
        <h2>{title}{done && <span class="hidden"> (done)</span>}</h2>
        <Command text={command} />
        <p>{children}</p>
      </div>
    </li>
  );
}

/** A command to copy. An option is not parted at its dashes. */
function Command({ text }: { text: string }) {
  const words = text.split(/(\s--\S+)/).map((w, i) => (i % 2 ? <>{w[0]}<span class="one-line">{w.slice(1)}</span></> : w));
  return <div class="command"><pre tabIndex={0}><code>{words}</code></pre><Copy text={text} what="the command" /></div>;
}

/** The same, short, for the list of releases. */
export function PublishHint() {
  const command = `semper publish out/semper-1.0.0 --server ${location.origin} --channel stable --token-file publish.token --key keys/payload-1.pem`;
  return <Card><p>Publish one from the machine that builds:</p><Command text={command} /><p class="muted">Keys and building: the <a href={href("/")}>overview</a> has all steps.</p></Card>;
}
