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

// The first object of Intl in a page costs as much as drawing its first view, and uPlot makes two when it is loaded, for numbers and zones that the charts write themselves.
const withoutIntl = {
  name: "without-intl",
  setup: (b) => b.onLoad({ filter: /uPlot\.esm\.js$/ }, async ({ path }) => {
    let contents = await readFile(path, "utf8");
    for (const [made, instead] of [
      ["new Intl.NumberFormat(domEnv ? nav.language : 'en-US')", "{ format: String }"],
      ["new Intl.DateTimeFormat().resolvedOptions().timeZone", '""'],
    ]) {
      if (contents.split(made).length !== 2) throw new Error(`uPlot has no longer one ${made}`);
      contents = contents.replace(made, instead);
    }
    return { contents };
  }),
};

const options = {
  absWorkingDir: here,
  outdir: join(out, "assets"),
  outbase: "src",
  entryNames: "[name]-[hash]",
  chunkNames: "[name]-[hash]",
  bundle: true,
  minify: true,
  target: "es2022",
  charset: "utf8",
  loader: { ".svg": "copy" },
  jsx: "automatic",
  jsxImportSource: "preact",
  plugins: [withoutIntl],
  legalComments: "none", // the licences are a file of their own
  metafile: true,
  logLevel: "warning",
};
const parts = await build({ ...options, entryPoints: ["src/console.tsx", "src/styles/console.css", "src/icon.svg"], splitting: true, format: "esm" });
const first = await build({ ...options, entryPoints: ["src/first.ts"], format: "iife" }); // is no module, so that it runs at once
const outputs = { ...parts.metafile.outputs, ...first.metafile.outputs };

// What each entry became.
const built = new Map();
for (const [path, output] of Object.entries(outputs)) {
  if (output.entryPoint) built.set(output.entryPoint, path.slice(path.lastIndexOf("/assets/")));
}
for (const path of Object.keys(outputs)) {
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
