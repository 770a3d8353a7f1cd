import type { Progress } from "../api/types";

/** The share of the machines that have the release, at each time. */
export const haveIt = (p: Progress) => p.complete.map((n) => (p.machines > 0 ? Math.min(n / p.machines, 1) : 0));
