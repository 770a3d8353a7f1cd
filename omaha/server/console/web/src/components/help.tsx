// The list of keys, by "?".
import { useEffect, useRef } from "preact/hooks";
import { onHelp, places } from "../lib/keys";
import { Icon } from "./icons";

export function Help() {
  const box = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    onHelp(() => box.current?.showModal());
    return () => onHelp(undefined);
  }, []);
  const close = () => box.current?.close();
  return (
    <dialog ref={box} class="dialog" aria-labelledby="help-title" onClick={(e) => { if (e.target === box.current) close(); }}>
      <header class="dialog-head"><h2 id="help-title">Keyboard</h2><button type="button" class="ghost" aria-label="Close" onClick={close}><Icon name="cross" /></button></header>
      <div class="dialog-body keys">
        <dl>
          <div><dt><kbd>?</kbd></dt><dd>This list</dd></div>
          <div><dt><kbd>/</kbd></dt><dd>Search in this view</dd></div>
          <div><dt><kbd>j</kbd> <kbd>k</kbd></dt><dd>Next and previous row</dd></div>
          <div><dt><kbd>Enter</kbd></dt><dd>Open the row</dd></div>
          <div><dt><kbd>t</kbd></dt><dd>Light, dark, or as the system</dd></div>
          <div><dt><kbd>Esc</kbd></dt><dd>Close, or leave a field</dd></div>
        </dl>
        <dl>{places.map(([key, , name]) => <div key={key}><dt><kbd>g</kbd> <kbd>{key}</kbd></dt><dd>{name}</dd></div>)}</dl>
      </div>
      <footer class="dialog-foot"><a class="quiet" href="/api/v1/">REST interface</a><a class="quiet" href="/licences.txt">Licences</a></footer>
    </dialog>
  );
}
