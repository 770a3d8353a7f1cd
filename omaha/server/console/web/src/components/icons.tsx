// The console's icons: 16 by 16, drawn with lines in the colour of the text around them. They never carry meaning alone, so screen readers skip them.
import type { JSX } from "preact";

const shapes = {
  overview: <><rect x="2" y="2" width="5" height="6" rx="1.2" /><rect x="9" y="2" width="5" height="3.5" rx="1.2" /><rect x="2" y="10.5" width="5" height="3.5" rx="1.2" /><rect x="9" y="8" width="5" height="6" rx="1.2" /></>,
  machines: <><rect x="2" y="2.5" width="12" height="4.5" rx="1.2" /><rect x="2" y="9" width="12" height="4.5" rx="1.2" /><path d="M4.5 4.75h.01M4.5 11.25h.01" /></>,
  releases: <><path d="M8 1.8 13.6 4.7v6.6L8 14.2 2.4 11.3V4.7z" /><path d="M2.6 4.8 8 7.6l5.4-2.8M8 7.6v6.4" /></>,
  rollouts: <><path d="M2 13c3.5 0 4-10 12-10" /><path d="M10.8 1.6 14 3l-1.6 3" /></>,
  channels: <><circle cx="4" cy="3.5" r="1.7" /><circle cx="4" cy="12.5" r="1.7" /><circle cx="12" cy="6" r="1.7" /><path d="M4 5.2v5.6M12 7.7c0 2.4-3 2.6-6.3 3.6" /></>,
  reboots: <><path d="M13.5 8a5.5 5.5 0 1 1-1.7-4" /><path d="M13.7 1.6v3.2h-3.2" /></>,
  people: <><circle cx="6" cy="5" r="2.6" /><path d="M1.5 13.5c.3-2.7 2-4.2 4.5-4.2s4.2 1.5 4.5 4.2M10.6 2.7a2.5 2.5 0 0 1 0 4.7M12 9.7c1.5.5 2.3 1.9 2.5 3.8" /></>,
  audit: <><path d="M4 1.8h5.5L12.5 4.8v9.4H4z" /><path d="M6.2 7h4M6.2 9.5h4M6.2 12h2.3" /></>,
  check: <path d="m3 8.5 3.3 3.3L13 4.7" />,
  cross: <path d="m4 4 8 8M12 4l-8 8" />,
  alert: <><path d="M8 2 14.5 13.5h-13z" /><path d="M8 6.5v3.2M8 11.7h.01" /></>,
  stop: <><path d="M5.5 1.8h5l3.7 3.7v5l-3.7 3.7h-5l-3.7-3.7v-5z" /><path d="M8 5v3.7M8 11h.01" /></>,
  info: <><circle cx="8" cy="8" r="6.2" /><path d="M8 7.3v3.7M8 5h.01" /></>,
  pause: <path d="M5.5 3.5v9M10.5 3.5v9" />,
  play: <path d="M4.8 2.8v10.4L13 8z" />,
  dash: <path d="M4 8h8" />,
  dot: <circle cx="8" cy="8" r="3" fill="currentColor" />,
  ring: <circle cx="8" cy="8" r="4.5" />,
  half: <><circle cx="8" cy="8" r="5" /><path d="M8 3a5 5 0 0 1 0 10z" fill="currentColor" /></>,
  silent: <><path d="M2 6a9 9 0 0 1 3.5-2.2M8 3.2c2.3 0 4.4 1 6 2.8M4.5 9a5.5 5.5 0 0 1 2-1.4M11.5 9" /><path d="M8 12.5h.01M2.5 2l11 12" /></>,
  search: <><circle cx="7" cy="7" r="4.5" /><path d="m10.5 10.5 3.5 3.5" /></>,
  copy: <><rect x="5.5" y="5.5" width="8" height="8.5" rx="1.3" /><path d="M10.5 3.2V2.8A1.3 1.3 0 0 0 9.2 1.5H3.3A1.3 1.3 0 0 0 2 2.8v6.4a1.3 1.3 0 0 0 1.3 1.3h.2" /></>,
  plus: <path d="M8 3v10M3 8h10" />,
  sun: <><circle cx="8" cy="8" r="2.8" /><path d="M8 1.5v1.3M8 13.2v1.3M1.5 8h1.3M13.2 8h1.3M3.4 3.4l.9.9M11.7 11.7l.9.9M12.6 3.4l-.9.9M4.3 11.7l-.9.9" /></>,
  moon: <path d="M13.3 9.7A5.8 5.8 0 0 1 6.3 2.7a5.8 5.8 0 1 0 7 7z" />,
  system: <><rect x="1.8" y="2.5" width="12.4" height="8.5" rx="1.2" /><path d="M5.5 13.8h5" /></>,
  more: <path d="M3.5 8h.01M8 8h.01M12.5 8h.01" stroke-width="2.4" />,
  keyboard: <><rect x="1.5" y="4" width="13" height="8.5" rx="1.3" /><path d="M4 6.7h.01M6.7 6.7h.01M9.3 6.7h.01M12 6.7h.01M5 9.8h6" /></>,
  leave: <><path d="M9.5 2.5H3.8v11h5.7" /><path d="M7 8h7M11.5 5.5 14 8l-2.5 2.5" /></>,
  arrow: <path d="M3 8h10M9 4l4 4-4 4" />,
  back: <path d="M13 8H3M7 4 3 8l4 4" />,
} satisfies Record<string, JSX.Element>;

export type IconName = keyof typeof shapes;

export function Icon({ name }: { name: IconName }) {
  return (
    <svg class="icon" viewBox="0 0 16 16" width="16" height="16" fill="none" stroke="currentColor" stroke-width="1.5" stroke-linecap="round" stroke-linejoin="round" aria-hidden="true">
      {shapes[name]}
    </svg>
  );
}

export function Mark() {
  return (
    <svg class="mark" viewBox="0 0 32 32" width="24" height="24" aria-hidden="true">
      <rect width="32" height="32" rx="8" class="mark-ground" />
      <rect x="7" y="7.5" width="18" height="7" rx="2.5" class="mark-slot" />
      <rect x="8" y="18.5" width="16" height="5" rx="1.5" class="mark-idle" />
    </svg>
  );
}
