// A rollout against its plan: the share that it may have reached, the share that it has, and how many machines are how far.
import type uPlot from "uplot";
import { useMemo } from "preact/hooks";
import type { Progress } from "../api/types";
import { number, percent, short } from "../lib/format";
import { axis, Chart, thin, timeMarks, type Ink } from "./chart";
import { hover } from "./hover";
import { haveIt } from "../lib/progress";

const at = (times: string[]) => times.map((t) => Date.parse(t) / 1000);

export function ShareChart({ p }: { p: Progress }) {
  const have = useMemo(() => haveIt(p), [p]);
  const data = useMemo(() => [at(p.times), p.reached.map((s) => s * 100), have.map((s) => s * 100)] as uPlot.AlignedData, [p]);
  const options = (ink: Ink): Omit<uPlot.Options, "width" | "height"> => ({
    legend: { show: false },
    cursor: { drag: { x: false, y: false }, y: false, points: { size: 6 } },
    padding: [8, 8, 0, 0],
    scales: { y: { range: [0, 100] } },
    axes: [axis(ink, { values: timeMarks, grid: { show: false }, size: 28 }), axis(ink, { size: 46, values: (_u, v) => v.map((n) => `${n} %`) })],
    series: [{},
      { label: "May have it", stroke: ink.of("muted"), width: 2, dash: [5, 5], points: { show: false } },
      { label: "Have it", stroke: ink.of("accent"), fill: ink.of("accent-wash"), width: 2.5, points: { show: false } }],
    plugins: [hover((i) => ({ title: short(new Date((data[0]?.[i] ?? 0) * 1000)), lines: [
      { name: "May have it", value: percent(p.reached[i] ?? 0), color: "muted" }, { name: "Have it", value: percent(have[i] ?? 0), color: "accent" }] }))],
  });
  const may = p.reached.at(-1) ?? 0, has = have.at(-1) ?? 0;
  return (
    <Chart label={`Share of the machines. May have the release: ${percent(may)}, have it: ${percent(has)}`} data={data} options={options}
      legend={[{ name: "May have it", color: "muted", value: percent(may), line: true, dash: true }, { name: "Have it", color: "accent", value: percent(has), line: true }]}
      table={{ head: ["Time", "May have it", "Have it"], rows: thin(p.times.map((t, i) => [short(new Date(t)), percent(p.reached[i] ?? 0), percent(have[i] ?? 0)])) }} />
  );
}

export function CountChart({ p }: { p: Progress }) {
  const data = useMemo(() => [at(p.times), p.updating, p.complete, p.failed] as uPlot.AlignedData, [p]);
  const lines = [["Updating", "muted", p.updating, true], ["Complete", "good", p.complete, false], ["Failed or silent", "bad", p.failed, false]] as const;
  const options = (ink: Ink): Omit<uPlot.Options, "width" | "height"> => ({
    legend: { show: false },
    cursor: { drag: { x: false, y: false }, y: false, points: { size: 6 } },
    padding: [8, 8, 0, 0],
    scales: { y: { range: (_u, _min, max) => [0, Math.max(max, 1)] } },
    axes: [axis(ink, { values: timeMarks, grid: { show: false }, size: 28 }), axis(ink, { size: 62, values: (_u, v) => v.map((n) => (Number.isInteger(n) ? number(n) : "")) })],
    series: [{}, ...lines.map(([label, color, , dash]) => ({ label, stroke: ink.of(color), width: 2, points: { show: false }, ...(dash ? { dash: [5, 5] } : {}) }))],
    plugins: [hover((i) => ({ title: short(new Date((data[0]?.[i] ?? 0) * 1000)), lines: lines.map(([name, color, n]) => ({ name, color, value: number(n[i] ?? 0) })) }))],
  });
  return (
    <Chart label={`Machines of the rollout: ${lines.map(([name, , n]) => `${number(n.at(-1) ?? 0)} ${name.toLowerCase()}`).join(", ")}`} data={data} options={options}
      legend={lines.map(([name, color, n, dash]) => ({ name, color, value: number(n.at(-1) ?? 0), line: true, dash }))}
      table={{ head: ["Time", ...lines.map(([name]) => name)], rows: thin(p.times.map((t, i) => [short(new Date(t)), ...lines.map(([, , n]) => number(n[i] ?? 0))])) }} />
  );
}
