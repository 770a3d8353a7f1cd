// What a chart says at the pointer. A plain element that follows; its text is text, never markup.
import type uPlot from "uplot";

export interface Tip { title: string; lines: { name: string; value: string; color: string }[] }

export function hover(tell: (index: number) => Tip): uPlot.Plugin {
  let box: HTMLDivElement | undefined;
  const element = (tag: string, className: string, text = "") => {
    const e = document.createElement(tag);
    e.className = className;
    e.textContent = text;
    return e;
  };
  return {
    hooks: {
      init: (u) => {
        box = element("div", "tip") as HTMLDivElement;
        box.hidden = true;
        u.over.append(box);
        u.over.addEventListener("mouseleave", () => { if (box) box.hidden = true; });
      },
      setCursor: (u) => {
        const i = u.cursor.idx;
        if (!box) return;
        if (i === undefined || i === null || (u.cursor.left ?? -1) < 0) { box.hidden = true; return; }
        const { title, lines } = tell(i);
        box.replaceChildren(element("div", "tip-title", title), ...lines.map((l) => {
          const row = element("div", "tip-line");
          const dot = element("span", "tip-dot");
          dot.style.background = `var(--${l.color})`;
          row.append(dot, element("span", "tip-name", l.name), element("span", "tip-value", l.value));
          return row;
        }));
        box.hidden = false;
        const left = u.cursor.left ?? 0, width = box.offsetWidth;
        box.style.left = `${left + width + 24 > u.over.clientWidth ? left - width - 12 : left + 12}px`;
        box.style.top = "4px";
      },
    },
  };
}
