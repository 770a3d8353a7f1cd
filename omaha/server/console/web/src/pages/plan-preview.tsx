// What a plan would do: its curve, how many machines, how long. The server computes it, by the rules that it goes by later.
import { useEffect, useRef, useState } from "preact/hooks";
import * as api from "../api/calls";
import { Problem } from "../api/client";
import type { NewRollout, Preview } from "../api/types";
import { Curve } from "../charts/curve";
import { Icon } from "../components/icons";
import { Card, Fact, Facts } from "../components/page";
import { words } from "../lib/duration";
import { capital, number } from "../lib/format";

const pause = 350; // ms without a change before it is asked

export function PlanPreview({ body, stairs }: { body: NewRollout | undefined; stairs: boolean }) {
  const [preview, setPreview] = useState<Preview>();
  const [problem, setProblem] = useState<Problem>();
  const asked = useRef(false);
  const text = body ? JSON.stringify(body) : "";
  useEffect(() => {
    if (!text) { setProblem(undefined); return; }
    const stop = new AbortController();
    const timer = setTimeout(() => {
      asked.current = true;
      api.preview(JSON.parse(text) as NewRollout, stop.signal).then(
        ({ data }) => { setPreview(data); setProblem(undefined); },
        (e: unknown) => { if (e instanceof Problem) setProblem(e); });
    }, asked.current ? pause : 0); // the first one changed nothing yet
    return () => { clearTimeout(timer); stop.abort(); };
  }, [text]);

  const points = (preview?.points ?? []).map((p) => ({ at: p.after_ns / 1e6, share: p.share }));
  const whole = points.find((p) => p.share >= 1)?.at ?? 0;
  const end = Math.max(whole, points.at(-1)?.at ?? 0, 3600e3);
  return (
    <Card title="Preview">
      <div aria-live="polite">
        {problem && <div class="trouble" role="status"><Icon name="alert" /><div><strong>This plan would be refused</strong><p>{capital(problem.message)}.</p></div></div>}
        {!problem && !preview && <p class="muted" data-busy={body ? "" : undefined}>{body ? "Computing…" : "Choose a release and a channel."}</p>}
        {preview && !problem && (
          <>
            <Curve points={points} end={end} stairs={stairs} machines={preview.machines} label={`Share of ${number(preview.machines)} machines that may have the release, over ${words(whole)}`} />
            <Facts>
              <Fact name="Machines">{number(preview.machines)}</Fact>
              <Fact name="Canaries">{number(preview.canaries)}</Fact>
              <Fact name="Everybody after">{whole > 0 ? `${words(whole)} at the earliest` : "at once"}</Fact>
            </Facts>
            {(preview.warnings ?? []).map((w) => <p key={w} class="warning"><Icon name="alert" /><span>{capital(w)}.</span></p>)}
          </>
        )}
      </div>
    </Card>
  );
}
