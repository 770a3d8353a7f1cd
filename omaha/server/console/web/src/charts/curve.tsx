// Small pictures without axes or with few, as SVG: the curve of a plan, and a rollout's line in a list.
import { useEffect, useRef, useState } from "preact/hooks";
import { words } from "../lib/duration";
import { number, percent } from "../lib/format";

export interface Point { at: number; share: number } // milliseconds since the start

/** A plan's curve. Waves are stairs, a ramp is a line: stairs are drawn when it says so. */
export function Curve({ points, end, stairs, machines, label }: { points: Point[]; end: number; stairs: boolean; machines: number; label: string }) {
  const span = (end || 1) * (stairs ? 1.08 : 1); // the last stair is seen to be one
  const { box, w } = useWidth();
  const h = 180, left = 44, right = 12, top = 10, bottom = 26;
  const x = (at: number) => left + ((w - left - right) * Math.min(at, span)) / span;
  const y = (share: number) => h - bottom - (h - top - bottom) * share;
  let d = `M${x(0)} ${y(0)}`;
  for (const p of points) {
    d += stairs ? ` H${x(p.at)} V${y(p.share)}` : ` L${x(p.at)} ${y(p.share)}`;
  }
  d += ` H${w - right}`;
  const marks = [0, 0.25, 0.5, 0.75, 1];
  return (
    <figure class="chart" ref={box}>
      <svg class="curve" viewBox={`0 0 ${w} ${h}`} role="img" aria-label={label}>
        {marks.map((s) => (
          <g key={s}>
            <line x1={left} x2={w - right} y1={y(s)} y2={y(s)} class="curve-grid" />
            <text x={left - 8} y={y(s) + 4} text-anchor="end">{s * 100} %</text>
          </g>
        ))}
        {marks.map((s) => <text key={s} x={x(end * s)} y={h - 6} text-anchor={s === 0 ? "start" : s === 1 && !stairs ? "end" : "middle"}>{s === 0 ? "start" : words(end * s)}</text>)}
        <path d={`${d} V${y(0)} H${left} Z`} class="curve-area" />
        <path d={d} class="curve-line" />
      </svg>
      <details class="chart-table">
        <summary>As a table</summary>
        <table>
          <caption class="hidden">{label}</caption>
          <thead><tr><th scope="col">After</th><th scope="col" class="r">Share</th><th scope="col" class="r">Machines</th></tr></thead>
          <tbody>{thinned(points).map((p, i) => <tr key={i}><th scope="row">{words(p.at)}</th><td class="r">{percent(p.share)}</td><td class="r">{number(Math.floor(p.share * machines))}</td></tr>)}</tbody>
        </table>
      </details>
    </figure>
  );
}

/** The width that there is, so that its text is as large as all other. */
function useWidth() {
  const box = useRef<HTMLElement>(null);
  const [w, set] = useState(420);
  useEffect(() => {
    const el = box.current;
    if (!el) return;
    const watch = new ResizeObserver(() => { if (el.clientWidth > 0) set(Math.max(el.clientWidth, 240)); });
    watch.observe(el);
    return () => watch.disconnect();
  }, []);
  return { box, w };
}

function thinned(points: Point[]): Point[] {
  const step = Math.ceil(points.length / 20);
  return points.filter((_, i) => i % step === 0 || i === points.length - 1);
}

/** A rollout's way so far against its plan, as large as a word. */
export function Spark({ planned, reached, label }: { planned: number[]; reached: number[]; label: string }) {
  const w = 160, h = 40;
  const line = (v: number[]) => v.map((s, i) => `${i ? "L" : "M"}${((i * w) / Math.max(v.length - 1, 1)).toFixed(1)} ${(h - 2 - s * (h - 4)).toFixed(1)}`).join(" ");
  return (
    <svg class="spark" viewBox={`0 0 ${w} ${h}`} role="img" aria-label={label} preserveAspectRatio="none">
      {reached.length > 1 && <path class="curve-area" d={`${line(reached)} L${w} ${h} L0 ${h} Z`} />}
      <path class="spark-plan" d={line(planned)} />
      <path class="curve-line" d={line(reached)} />
    </svg>
  );
}
