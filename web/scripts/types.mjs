/** Generates TypeScript types and the schema's module from sam_edge/bundle/manifest.schema.json (`npm run types`). */
import { readFile, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { compile } from "json-schema-to-typescript";

const BANNER = "// Generated from sam_edge/bundle/manifest.schema.json by `npm run types`. Do not edit.\n";

/** Returns the content of the two generated files, by path relative to web/. */
export async function generated() {
  const text = await readFile(new URL("../../sam_edge/bundle/manifest.schema.json", import.meta.url), "utf8");
  const types = await compile({ ...JSON.parse(text), title: "Manifest" }, "Manifest", {
    bannerComment: BANNER,
    format: true,
  });
  return {
    "src/runtime/manifest.types.ts": types,
    "src/runtime/manifest.schema.ts": `${BANNER}\nexport const schema = ${text.trimEnd()};\n`,
  };
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  for (const [path, content] of Object.entries(await generated())) {
    await writeFile(new URL(`../${path}`, import.meta.url), content);
  }
}
