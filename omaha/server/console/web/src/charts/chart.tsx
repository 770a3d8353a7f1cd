// A picture of numbers over time, and the same numbers as a table for those who do not see it.
import type uPlot from "uplot";
import type { ComponentChildren } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { clock, date } from "../lib/format";
import { useTheme } from "../lib/theme";

export interface Legend { name: string; color: string; value: string; dash?: boolean; line?: boolean }

interface Props {
  label: string; // says what the picture shows, and its gist
  legend: Legend[];
  options: (ink: Ink) => Omit<uPlot.Options, "width" | "height">;
  data: uPlot.AlignedData;
  height?: number;
  table: { head: string[]; rows: string[][] };
  aside?: ComponentChildren;
}

/** The colours of the theme, for the canvas. */
export interface Ink { of: (name: string) => string; text: string; grid: string }

function inkOf(el: Element): Ink {
  const style = getComputedStyle(el);
  const of = (name: string) => style.getPropertyValue(`--${name}`).trim();
  return { of, text: of("muted"), grid: of("grid") };
}

/** What axes of all charts have in common. */
export function axis(ink: Ink, more: Partial<uPlot.Axis> = {}): uPlot.Axis {
  return { stroke: ink.text, font: "11px system-ui, sans-serif", grid: { stroke: ink.grid, width: 1 }, ticks: { show: false }, gap: 6, ...more };
}

export function Chart({ label, legend, options, data, height = 220, table, aside }: Props) {
  const box = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot>(undefined);
  const { changes } = useTheme();
  const shape = data.length + legend.map((l) => l.name).join("\n");

  useEffect(() => {
    const el = box.current;
    if (!el) return;
    let gone = false;
    const width = () => Math.max(el.clientWidth, 100);
    let drawn = 0; // for which width
    const watch = new ResizeObserver(() => { // it tells the first width too
      if (width() !== drawn) plot.current?.setSize({ width: drawn = width(), height });
    });
    void import("./plot").then(({ default: UPlot }) => {
      if (gone) return;
      plot.current = new UPlot({ ...options(inkOf(el)), width: drawn = width(), height }, latest.current, el);
      watch.observe(el);
    });
    return () => {
      gone = true;
      watch.disconnect();
      plot.current?.destroy();
      plot.current = undefined;
    };
  }, [shape, changes, height]);

  const latest = useRef(data);
  useEffect(() => {
    latest.current = data;
    plot.current?.setData(data);
  }, [data]);

  return (
    <figure class="chart">
      <figcaption class="hidden">{label}</figcaption>
      <div class="chart-head">
        <ul class="legend" aria-label="Legend">
          {legend.map((l) => (
            <li key={l.name}>
              <svg width="14" height="10" aria-hidden="true">
                {l.line ? <line x1="0" y1="5" x2="14" y2="5" stroke-width="2.5" stroke={`var(--${l.color})`} stroke-dasharray={l.dash ? "3 3" : undefined} /> : <rect width="14" height="10" rx="2" fill={`var(--${l.color})`} />}
              </svg>
              <span>{l.name}</span> <span class="num muted">{l.value}</span>
            </li>
          ))}
        </ul>
        {aside}
      </div>
      <div ref={box} class="chart-box" role="img" aria-label={label} style={{ height: `${height}px` }} />
      <details class="chart-table">
        <summary>As a table</summary>
        <div class="table-box" tabIndex={0} role="region" aria-label={`${label}, as a table`}>
          <table>
            <caption class="hidden">{label}</caption>
            <thead><tr>{table.head.map((h, i) => <th key={h} scope="col" class={i ? "r" : undefined}>{h}</th>)}</tr></thead>
            <tbody>{table.rows.map((r) => <tr key={r[0]}>{r.map((c, i) => i ? <td key={i} class="r">{c}</td> : <th key={i} scope="row">{c}</th>)}</tr>)}</tbody>
          </table>
        </div>
      </details>
    </figure>
  );
}

/** At most so many rows of many, evenly, the last one always. */
export function thin<T>(rows: readonly T[], most = 24): T[] {
  if (rows.length <= most) return [...rows];
  return Array.from({ length: most }, (_, i) => rows[Math.round((i * (rows.length - 1)) / (most - 1))]!);
}

/** An axis of time, marked as the viewer's clock has it. */
export function timeMarks(_: uPlot, splits: number[], __: number, ___: number, step: number): string[] {
  let lastDay = "";
  return splits.map((s) => {
    const d = new Date(s * 1000);
    const today = date(d);
    if (step >= 86400) return today;
    const out = lastDay && today !== lastDay ? today : clock(d);
    lastDay = today;
    return out;
  });
}
