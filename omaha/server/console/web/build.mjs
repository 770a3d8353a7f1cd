// Builds the console into a folder (../dist, or the argument): assets under names with a hash of their content, and the page that names them.
// The same sources and the same lock give the same bytes: nothing here reads a clock, a path of this machine or the order of a folder.
import { build } from "esbuild";
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const out = resolve(process.argv[2] ?? join(here, "../dist"));

await rm(out, { recursive: true, force: true });
await mkdir(out, { recursive: true });

const result = await build({
  absWorkingDir: here,
  entryPoints: ["src/console.tsx", "src/theme.ts", "src/styles/console.css", "src/icon.svg"],
  outdir: join(out, "assets"),
  outbase: "src",
  entryNames: "[name]-[hash]",
  chunkNames: "[name]-[hash]",
  bundle: true,
  minify: true,
  splitting: true,
  format: "esm",
  target: "es2022",
  charset: "utf8",
  loader: { ".svg": "copy" },
  jsx: "automatic",
  jsxImportSource: "preact",
  legalComments: "none", // the licences are a file of their own
  metafile: true,
  logLevel: "warning",
});

// What each entry became.
const built = new Map();
for (const [path, output] of Object.entries(result.metafile.outputs)) {
  if (output.entryPoint) built.set(output.entryPoint, path.slice(path.lastIndexOf("/assets/")));
}
for (const path of Object.keys(result.metafile.outputs)) {
  if (path.endsWith(".svg")) built.set("src/icon.svg", path.slice(path.lastIndexOf("/assets/")));
}
const chart = built.get("src/charts/plot.ts");

const page = (await readFile(join(here, "src/index.html"), "utf8")).replace(/\{\{(\S+)\}\}/g, (_, name) => {
  const path = name === "chart" ? chart : built.get("src/" + name);
  if (!path) throw new Error(`index.html names ${name}, and the build has no such output`);
  return path;
});
await writeFile(join(out, "index.html"), page);

// The licences of what is bundled ask to be passed on with it.
let licences = "The console contains these packages.\n";
for (const name of ["preact", "uplot"]) {
  const folder = join(here, "node_modules", name);
  const { version } = JSON.parse(await readFile(join(folder, "package.json"), "utf8"));
  licences += `\n---- ${name} ${version}\n\n${(await readFile(join(folder, "LICENSE"), "utf8")).trim()}\n`;
}
await writeFile(join(out, "licences.txt"), licences);
