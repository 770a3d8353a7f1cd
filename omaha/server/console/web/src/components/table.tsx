// Tables: a caption for screen readers, numbers to the right, and on a phone each row becomes a block with the columns' names.
// The roles are written out because browsers drop them with the display that the phone's layout needs.
import type { ComponentChildren } from "preact";

export interface Column<T> {
  name: string;
  cell: (row: T) => ComponentChildren;
  num?: boolean;
  grow?: boolean; // takes what room is left
  wide?: boolean; // left out on narrow screens
  bare?: boolean; // of buttons: its name is for screen readers alone
}

interface Props<T> {
  caption: string;
  columns: Column<T>[];
  rows: readonly T[];
  id: (row: T) => string | number;
  dim?: (row: T) => boolean;
}

export function Table<T>({ caption, columns, rows, id, dim }: Props<T>) {
  const kind = (c: Column<T>) => `${c.num ? "r " : ""}${c.grow ? "grow " : ""}${c.wide ? "wide " : ""}${c.bare ? "bare" : ""}`;
  return (
    <div class="table-box">
      <table role="table">
        <caption class="hidden">{caption}</caption>
        <thead role="rowgroup">
          <tr role="row">{columns.map((c) => <th key={c.name} role="columnheader" scope="col" class={kind(c)}>{c.bare ? <span class="hidden">{c.name}</span> : c.name}</th>)}</tr>
        </thead>
        <tbody role="rowgroup">
          {rows.map((row) => (
            <tr key={id(row)} role="row" class={dim?.(row) ? "dim" : undefined}>
              {columns.map((c, i) => i === 0
                ? <th key={c.name} role="rowheader" scope="row" class={kind(c)}><div class="cell">{c.cell(row)}</div></th>
                : <td key={c.name} role="cell" data-label={c.bare ? "" : c.name} class={kind(c)}><div class="cell">{c.cell(row)}</div></td>)}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
