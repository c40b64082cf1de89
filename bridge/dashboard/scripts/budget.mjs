// Fails when the built page is larger than its budget, or when index.html holds script or style of its own.
// The first view is what index.html names plus what that loads without a click (the worker); all figures are gzip.
import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";

const FIRST_VIEW_BYTES_MAX = 80 * 1024; // one second on a slow phone link of 0.65 Mbit/s
const EVERYTHING_BYTES_MAX = 130 * 1024;

const dist = new URL("../dist/", import.meta.url).pathname;
const page = readFileSync(join(dist, "index.html"), "utf8");
const packed = new Map(
  readdirSync(join(dist, "assets"))
    .filter((name) => /\.(js|css)\.gz$/.test(name))
    .map((name) => [name.slice(0, -3), statSync(join(dist, "assets", name)).size]),
);

const isFirst = (name) => page.includes(name) || name.startsWith("worker-");
const sum = (names) => names.reduce((total, name) => total + packed.get(name), 0);
const names = [...packed.keys()].sort();
const first = sum(names.filter(isFirst));
const everything = sum(names);
const kilobytes = (bytes) => `${(bytes / 1024).toFixed(1)} KB`;

for (const name of names) console.log(`  ${kilobytes(packed.get(name)).padStart(8)}  ${name}${isFirst(name) ? "" : "  (on demand)"}`);
console.log(`dashboard    built, ${kilobytes(first)} gzip first view, ${kilobytes(everything)} in all`);

const faults = [];
if (names.length === 0) faults.push("dist/assets is empty: run npm run build first");
if (first > FIRST_VIEW_BYTES_MAX) faults.push(`first view is ${kilobytes(first)}, budget ${kilobytes(FIRST_VIEW_BYTES_MAX)}`);
if (everything > EVERYTHING_BYTES_MAX) faults.push(`everything is ${kilobytes(everything)}, budget ${kilobytes(EVERYTHING_BYTES_MAX)}`);
if (/<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=/i.test(page)) faults.push("index.html holds inline script or style");
for (const fault of faults) console.error(`error: ${fault}`);
process.exit(faults.length ? 1 : 0);
