/**
 * Provides tests with a bundle and with the Python runtime's results on it.
 *
 * The bundle is SAM_EDGE_BUNDLE, or a fresh export of the embedded model. If SAM_EDGE_REFERENCE names a folder,
 * results are kept there for the next run on the same bundle.
 */

import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import type { TestProject } from "vitest/node";

declare module "vitest" {
  export interface ProvidedContext {
    bundle: string;
    reference: string;
    python: string;
  }
}

const WEB = fileURLToPath(new URL("..", import.meta.url));
const ROOT = resolve(WEB, "..");

export default function setup(project: TestProject) {
  const python = resolve(WEB, process.env.PYTHON ?? "../.venv/bin/python");
  if (!existsSync(python))
    throw new Error(
      `${python} is missing; run \`make test\` once, or set PYTHON to an interpreter with sam-edge[all]`,
    );
  const run = (...args: string[]) =>
    execFileSync(python, args, { cwd: ROOT, stdio: ["ignore", "ignore", "inherit"] });
  const scratch = mkdtempSync(join(tmpdir(), "sam-edge-web-"));
  let bundle = process.env.SAM_EDGE_BUNDLE;
  if (bundle === undefined) {
    bundle = join(scratch, "bundle");
    run(
      "-m",
      "sam_edge",
      "export",
      "--format",
      "onnx",
      "--precision",
      "fp32,int8",
      "--target",
      "any,web",
      "--out",
      bundle,
    );
  }
  const reference = resolve(process.env.SAM_EDGE_REFERENCE ?? join(scratch, "reference"));
  if (!existsSync(join(reference, "reference.json")))
    run("web/tests/reference.py", resolve(bundle), reference);
  project.provide("bundle", resolve(bundle));
  project.provide("reference", reference);
  project.provide("python", python);
  return () => rmSync(scratch, { recursive: true });
}
