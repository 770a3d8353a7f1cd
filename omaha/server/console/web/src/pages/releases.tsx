// What was published, newest first.
import * as api from "../api/calls";
import type { Channel, Release } from "../api/types";
import { Pick, Search } from "../components/fields";
import { Card, Empty, Page, Show } from "../components/page";
import { More, mostOf } from "../components/pages";
import { Table } from "../components/table";
import { Size, Status, Time } from "../components/values";
import { plural, time } from "../lib/format";
import { useLoad } from "../lib/load";
import { filter, href, type Place } from "../lib/router";
import { PublishHint } from "./first-release";

export function ReleasesPage({ place }: { place: Place }) {
  const all = useLoad("releases", api.releases, ["releases"]);
  const channels = useLoad("channels", api.channels, ["channels", "releases"]).data?.channels ?? [];
  const text = place.query.get("text") ?? "", arch = place.query.get("arch") ?? "", most = mostOf(place);
  const releases = all.data?.releases ?? [];
  const shown = [...releases].reverse().filter((r) => (!arch || r.arch === arch) && (!text || r.version.includes(text) || channelsOf(channels, r).some((c) => c.name.includes(text))));
  return (
    <Page title="Releases" lead={releases.length > 0 ? plural(releases.length, "release") : undefined}>
      <div class="filters">
        <Search label="Version or channel" value={text} set={(v) => filter({ text: v })} />
        <Pick label="Architecture" value={arch} set={(v) => filter({ arch: v })} options={[["amd64", "amd64"], ["arm64", "arm64"]]} />
      </div>
      <Card flush>
        <Show of={all} rows={8}>
          {() => shown.length === 0
            ? <Empty icon="releases" title={releases.length ? "Nothing matches" : "No release yet"}>{releases.length === 0 && <PublishHint />}</Empty>
            : <Table caption="Releases, the newest first" rows={shown.slice(0, most)} id={(r) => `${r.arch} ${r.version}`} dim={(r) => !!time(r.withdrawn)} columns={[
              { name: "Version", cell: (r) => <a class="title version" href={href(`/releases/${encodeURIComponent(r.arch)}/${encodeURIComponent(r.version)}`)}>{r.version}</a> },
              { name: "Arch", cell: (r) => r.arch },
              { name: "Offered by", grow: true, cell: (r) => <Marks r={r} channels={channels} /> },
              { name: "Payload", num: true, cell: (r) => <Size bytes={r.payload.size} /> },
              { name: "Published", cell: (r) => <Time at={r.published} /> },
            ]} />}
        </Show>
      </Card>
      <More of={shown.length} most={most} />
    </Page>
  );
}

export const channelsOf = (channels: readonly Channel[], r: Release): Channel[] => channels.filter((c) => c.arch === r.arch && c.version === r.version);

export function Marks({ r, channels }: { r: Release; channels: readonly Channel[] }) {
  const mine = channelsOf(channels, r);
  if (mine.length === 0 && !time(r.withdrawn) && !r.road) return null;
  return (
    <span class="marks">
      {mine.map((c) => <a key={c.name} class="tag" href={href("/channels")}>{c.name}</a>)}
      {time(r.withdrawn) && <Status tone="bad" icon="cross" {...(r.withdrawn_why ? { title: r.withdrawn_why } : {})}>Withdrawn</Status>}
      {r.road === "floor" && <Status tone="warn" icon="dash" title="Older machines get it before anything newer">Floor</Status>}
      {r.road === "dead-end" && <Status tone="warn" icon="stop" {...(r.road_why ? { title: r.road_why } : {})}>Dead end</Status>}
    </span>
  );
}
