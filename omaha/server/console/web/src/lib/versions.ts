// The order of versions, near enough to the server's for sorting a list: numbers by value, a pre-release before its release.

function split(v: string): { numbers: number[]; pre: string } {
  const at = v.search(/[-~]/);
  return { numbers: (at < 0 ? v : v.slice(0, at)).split(".").map((n) => Number(n) || 0), pre: at < 0 ? "" : v.slice(at + 1) };
}

export function compareVersions(a: string, b: string): number {
  const x = split(a), y = split(b);
  for (let i = 0; i < Math.max(x.numbers.length, y.numbers.length); i++) {
    const d = (x.numbers[i] ?? 0) - (y.numbers[i] ?? 0);
    if (d) return d;
  }
  if (!x.pre || !y.pre) return (x.pre ? 0 : 1) - (y.pre ? 0 : 1);
  return x.pre.localeCompare(y.pre, "en", { numeric: true });
}
