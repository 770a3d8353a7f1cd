// How many machines ran which version, over time: areas on top of each other, the newest version at the bottom.
import type uPlot from "uplot";
import { useMemo } from "preact/hooks";
import type { VersionChart } from "../api/types";
import { number, short } from "../lib/format";
import { compareVersions } from "../lib/versions";
import { axis, Chart, thin, timeMarks, type Ink } from "./chart";
import { hover } from "./hover";

const shown = 7; // versions with a colour of their own; the rest is one area

interface Series { name: string; counts: number[]; color: string }

/** The versions that most machines have, newest first, and all others as one. */
function pick(chart: VersionChart): Series[] {
  const all = (chart.series ?? []).filter((s) => s.machines.some((n) => n > 0));
  const weight = (counts: number[]) => Math.max(...counts.slice(-1), 0) * 1e6 + counts.reduce((a, b) => a + b, 0);
  const top = new Set([...all].sort((a, b) => weight(b.machines) - weight(a.machines)).slice(0, shown));
  const out: Series[] = [...top].sort((a, b) => compareVersions(b.version, a.version)).map((s, i) => ({ name: s.version || "unknown", counts: s.machines, color: `series-${i + 1}` }));
  const rest = all.filter((s) => !top.has(s));
  if (rest.length > 0) {
    const n = chart.times?.length ?? 0;
    out.push({ name: `${rest.length} others`, color: "series-8", counts: Array.from({ length: n }, (_, i) => rest.reduce((sum, s) => sum + (s.machines[i] ?? 0), 0)) });
  }
  return out;
}

export function VersionsChart({ chart }: { chart: VersionChart }) {
  const series = useMemo(() => pick(chart), [chart]);
  const times = chart.times ?? [];
  const data = useMemo(() => {
    const sums = new Array<number>(times.length).fill(0);
    const layers = series.map((s) => s.counts.map((n, i) => (sums[i] = (sums[i] ?? 0) + n)));
    return [times.map((t) => Date.parse(t) / 1000), ...layers] as uPlot.AlignedData;
  }, [chart]);

  const options = (ink: Ink): Omit<uPlot.Options, "width" | "height"> => ({
    legend: { show: false },
    cursor: { points: { show: false }, drag: { x: false, y: false }, y: false },
    padding: [8, 8, 0, 0],
    scales: { y: { range: (_u, _min, max) => [0, Math.max(max, 1)] } },
    axes: [axis(ink, { values: timeMarks, grid: { show: false }, size: 28 }), axis(ink, { size: 62, values: (_u, v) => v.map((n) => (Number.isInteger(n) ? number(n) : "")) })],
    series: [{}, ...series.map((s) => ({ label: s.name, stroke: ink.of(s.color), fill: ink.of(s.color), width: 1, points: { show: false } }))],
    // Each area is filled down to the one below it.
    bands: series.slice(1).map((_, i) => ({ series: [i + 2, i + 1] as [number, number], fill: ink.of(series[i + 1]!.color) })),
    plugins: [hover((i) => ({ title: short(new Date((data[0]?.[i] ?? 0) * 1000)), lines: series.map((s) => ({ name: s.name, value: number(s.counts[i] ?? 0), color: s.color })).filter((l) => l.value !== "0") }))],
  });

  const now = (s: Series) => s.counts.at(-1) ?? 0;
  const label = `Machines by version over time. Now: ${series.map((s) => `${s.name} ${number(now(s))}`).join(", ")}`;
  return (
    <Chart label={label} data={data} options={options} height={240}
      legend={series.map((s) => ({ name: s.name, color: s.color, value: number(now(s)) }))}
      table={{ head: ["Time", ...series.map((s) => s.name)], rows: thin(times.map((t, i) => [short(new Date(t)), ...series.map((s) => number(s.counts[i] ?? 0))])) }} />
  );
}
