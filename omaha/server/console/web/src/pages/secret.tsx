// A secret that is shown once.
import { useEffect, useRef } from "preact/hooks";
import { Icon } from "../components/icons";
import { Copy } from "../components/values";

export function Secret({ what, text, close }: { what: string; text: string; close: () => void }) {
  const box = useRef<HTMLElement>(null);
  useEffect(() => box.current?.focus(), []);
  return (
    <section class="secret" tabIndex={-1} ref={box} aria-label={what}>
      <p><Icon name="alert" /><strong>{what}, shown this once.</strong> Put it where it belongs now; nobody can show it again.</p>
      <div class="command"><pre tabIndex={0}><code>{text}</code></pre><Copy text={text} what="the secret" /></div>
      <button type="button" class="button small" onClick={close}>I have it</button>
    </section>
  );
}
