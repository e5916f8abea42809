import { readFile } from "node:fs/promises";
import { expect, test } from "vitest";
import { generated } from "../../scripts/types.mjs";

test("the generated types match sam_edge/bundle/manifest.schema.json", async () => {
  for (const [path, content] of Object.entries(await generated())) {
    const committed = await readFile(new URL(`../../${path}`, import.meta.url), "utf8");
    expect(committed, `${path} is out of date: npm run types`).toBe(content);
  }
});
