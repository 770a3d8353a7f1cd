// One release: what is in it, who signed it, what changed, which channels offer it, and what can be done with it.
import * as api from "../api/calls";
import type { Release, ReleaseDetail } from "../api/types";
import { Search } from "../components/fields";
import { Icon } from "../components/icons";
import { Card, Empty, Fact, Facts, Page, Show } from "../components/page";
import { More, mostOf } from "../components/pages";
import { Table } from "../components/table";
import { Copy, Id, Size, Time } from "../components/values";
import { day, number, plural, time } from "../lib/format";
import { useLoad } from "../lib/load";
import { manifestOf, signaturesOf } from "../lib/manifest";
import { filter, href, type Place } from "../lib/router";
import { may } from "../lib/session";
import { compareVersions } from "../lib/versions";
import { askMark, askPromote, askRestore, askWithdraw } from "./release-acts";
import { Marks } from "./releases";

export function ReleasePage({ arch, version, place }: { arch: string; version: string; place: Place }) {
  const release = useLoad(`release ${arch} ${version}`, () => api.release(arch, version), ["releases"]);
  const channels = useLoad("channels", api.channels, ["channels", "releases"]).data?.channels ?? [];
  const all = useLoad("releases", api.releases, ["releases"]).data?.releases;
  const r = release.data;
  const reload = release.reload;
  return (
    <Page title={version} up={{ text: "Releases", href: href("/releases") }} heading={<span class="version">{version}</span>}
      lead={r && <span class="lead-row"><span>{r.arch}</span><span>published <Time at={r.published} /></span><Marks r={r} channels={channels} /></span>}
      actions={r && <>
        {may("operator") && (time(r.withdrawn)
          ? <button type="button" class="button" onClick={() => askRestore(r, release.etag, reload)}>Restore</button>
          : <button type="button" class="button quiet-danger" onClick={() => askWithdraw(r, release.etag, reload)}>Withdraw</button>)}
        {may("operator") && <button type="button" class="button" onClick={() => askMark(r, release.etag, reload)}>Mark</button>}
        {may("publisher") && !time(r.withdrawn) && <button type="button" class="button" onClick={() => askPromote(r, channels, reload)}>Set a channel</button>}
        {may("operator") && !time(r.withdrawn) && <a class="button primary" href={href("/rollouts/new", { version, arch })}>Roll out</a>}
      </>}>
      <Show of={release} rows={8}>{(r) => <Body r={r} all={all} place={place} />}</Show>
    </Page>
  );
}

function Body({ r, all, place }: { r: ReleaseDetail; all: Release[] | undefined; place: Place }) {
  const m = manifestOf(r.manifest), signatures = signaturesOf(r.signature);
  return (
    <>
      {time(r.withdrawn) && <section class="why bad"><h2 class="why-head"><Icon name="cross" />Withdrawn <Time at={r.withdrawn} /></h2><p class="why-text">{r.withdrawn_why}</p><p class="why-foot"><span>Nobody is offered it or served its payload. Machines that have it keep it.</span></p></section>}
      {r.road && <section class="why warn"><h2 class="why-head"><Icon name="alert" />{r.road === "floor" ? "A floor: older machines get it before anything newer" : "A dead end: whoever runs it gets nothing newer by itself"}</h2>{r.road_why && <p class="why-text">{r.road_why}</p>}</section>}
      <div class="columns">
        <div class="column-main">
          <PackagesCard r={r} all={all} place={place} />
          {m && m.files.length > 0 && (
            <Card title={<>Files <span class="count">{m.files.length}</span></>} flush>
              <Table caption="Files of the release" rows={m.files} id={(f) => f.name} columns={[
                { name: "File", cell: (f) => <span class="mono">{f.name}</span> },
                { name: "SHA-256", grow: true, cell: (f) => <Id text={f.sha256} copy /> },
                { name: "Size", num: true, cell: (f) => <Size bytes={f.size} /> },
              ]} />
            </Card>
          )}
        </div>
        <div class="column-side">
          <Card title="Payload">
            <Facts>
              <Fact name="Size"><Size bytes={r.payload.size} /></Fact>
              <Fact name="File"><span class="mono">{r.payload.name}</span></Fact>
              <Fact name="SHA-256"><span class="mono break small">{r.payload.sha256}</span> <Copy text={r.payload.sha256} what="the hash" /></Fact>
              <Fact name="From">{r.min_version ? <>{r.min_version} or newer</> : "any version"}</Fact>
              {r.urls && r.urls.length > 0 && <Fact name="Kept at">{r.urls.map((u) => <span key={u} class="mono break small">{u} </span>)}</Fact>}
            </Facts>
          </Card>
          <Card title={<>Signatures <span class="count">{signatures.length}</span></>}>
            {signatures.length === 0 ? <p class="muted">It came without a signed list.</p>
              : <Facts>{signatures.map((s, i) => <Fact key={s.key_id} name={`Key ${i + 1}`}><Id text={s.key_id} copy /><span class="under">{s.algorithm}</span></Fact>)}</Facts>}
          </Card>
          {m && (
            <Card title="Build">
              <Facts>
                {m.name && <Fact name="Image">{m.name}</Fact>}
                {m.epoch !== undefined && <Fact name="Epoch">{number(m.epoch)}</Fact>}
                {m.root_hash && <Fact name="Root hash"><Id text={m.root_hash} copy /></Fact>}
                {m.packages_sha256 && <Fact name="Lock"><Id text={m.packages_sha256} copy /></Fact>}
                {m.source_date_epoch ? <Fact name="Packages of">{day(new Date(m.source_date_epoch * 1000))}</Fact> : null}
              </Facts>
            </Card>
          )}
        </div>
      </div>
    </>
  );
}

/** The release before this one, in the order of versions: what a person compares with. */
function before(all: Release[], r: Release): string[] {
  return all.filter((x) => x.arch === r.arch && x.version !== r.version).map((x) => x.version).sort((a, b) => compareVersions(b, a));
}

function PackagesCard({ r, all, place }: { r: Release; all: Release[] | undefined; place: Place }) {
  const others = before(all ?? [], r);
  const withdrawn = new Set((all ?? []).filter((x) => x.arch === r.arch && time(x.withdrawn)).map((x) => x.version)); // nobody came from there
  const against = place.query.get("against") ?? others.find((v) => compareVersions(v, r.version) < 0 && !withdrawn.has(v)) ?? others.find((v) => compareVersions(v, r.version) < 0) ?? "";
  const text = place.query.get("text") ?? "";
  const most = mostOf(place);
  const list = useLoad(all ? `packages ${r.arch} ${r.version} ${against}` : "", () => api.packages(r.arch, r.version, against), ["releases"]);
  const named = (list.data?.packages ?? []).filter((p) => p.name.includes(text));
  const compare = others.length > 0 && (
    <label class="aside-row"><span class="muted">against</span>
      <select value={against} onChange={(e) => filter({ against: e.currentTarget.value })}>{!against && <option value="">nothing</option>}{others.map((v) => <option key={v} value={v}>{v}{withdrawn.has(v) ? " (withdrawn)" : ""}</option>)}</select>
    </label>
  );
  if (list.problem?.status === 404 && !list.data) {
    return <Card title="Packages" aside={compare}><Empty icon="releases" title="It came without its list of packages">Publish with <code>semper publish</code> of this version, which sends <code>packages.lock</code> along.</Empty></Card>;
  }
  return (
    <>
      <Card title="Changes" aside={compare} flush>
        <Show of={list} rows={3}>
          {(d) => !d.against ? <Empty icon="info" title="Nothing to compare with" />
            : (d.changes ?? []).length === 0 ? <Empty icon="check" title={`The same packages as ${d.against}`} />
              : <Table caption={`Packages that differ from ${d.against}`} rows={d.changes ?? []} id={(c) => c.name} columns={[
                { name: "Package", cell: (c) => <span class="mono one-line">{c.name}</span> },
                { name: "Change", cell: (c) => <span class="tag">{!c.from ? "new" : !c.to ? "gone" : "changed"}</span> },
                { name: "Before", grow: true, cell: (c) => <span class="mono break small muted">{c.from || "–"}</span> },
                { name: "Now", grow: true, cell: (c) => <span class="mono break small">{c.to || "–"}</span> },
              ]} />}
        </Show>
      </Card>
      {list.data && list.data.packages.length > 0 && (
        <Card title={<>Packages <span class="count">{number(list.data.packages.length)}</span></>} aside={<Search label="Package" value={text} set={(v) => filter({ text: v })} />} flush>
          <div class="tall" tabIndex={0} role="region" aria-label="All packages">
            <Table caption={plural(list.data.packages.length, "package")} rows={named.slice(0, most)} id={(p) => p.name} columns={[
              { name: "Package", cell: (p) => <span class="mono">{p.name}</span> },
              { name: "Version", grow: true, cell: (p) => <span class="mono break small">{p.version}</span> },
              { name: "Size", num: true, cell: (p) => (p.size ? <Size bytes={p.size} /> : "") },
            ]} />
          </div>
          <More of={named.length} most={most} />
        </Card>
      )}
    </>
  );
}
