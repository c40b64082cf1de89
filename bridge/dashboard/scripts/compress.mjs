// Writes NAME.br and NAME.gz beside each file of dist/assets, for the server to hand out as they are.
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { brotliCompressSync, constants, gzipSync } from "node:zlib";

const assets = new URL("../dist/assets/", import.meta.url).pathname;

for (const name of readdirSync(assets)) {
  if (!/\.(js|css|svg)$/.test(name)) continue;
  const body = readFileSync(join(assets, name));
  const brotli = { params: { [constants.BROTLI_PARAM_QUALITY]: 11, [constants.BROTLI_PARAM_SIZE_HINT]: body.length } };
  writeFileSync(join(assets, `${name}.br`), brotliCompressSync(body, brotli));
  writeFileSync(join(assets, `${name}.gz`), gzipSync(body, { level: 9 }));
}
