/** `manifest.json`: what a bundle holds and how its model wants its inputs; as sam_edge/bundle/manifest.py. */

import { canonicalJson } from "./canonical.ts";
import { reason, SamEdgeError } from "./errors.ts";
import { schema } from "./manifest.schema.ts";
import type { File, Manifest, Variant } from "./manifest.types.ts";
import { sha256 } from "./sha256.ts";
import type { Source } from "./source.ts";
import { validate } from "./validate.ts";

export type { File, Graph, Manifest, Variant } from "./manifest.types.ts";
export type InputRules = Manifest["input"];
export type PromptRules = Manifest["prompt"];

export const SCHEMA_VERSION = 1;
const STAGES = ["scorer", "upscaler"] as const;

/**
 * Read and check the manifest of a bundle.
 *
 * Throws a `SamEdgeError`: not JSON, made by a newer sam-edge, against the schema, naming files outside the
 * bundle or without a hash, or changed since the export.
 */
export async function readManifest(source: Source): Promise<Manifest> {
  const bytes = await source.read("manifest.json");
  const name = `manifest.json of ${source.name}`;
  const bad = (what: string, next = "export the bundle again") =>
    new SamEdgeError("manifest", `${name} ${what}; ${next}`);
  let text: string;
  let data: Manifest;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    data = JSON.parse(text);
  } catch (error) {
    throw bad(`is not valid JSON (${reason(error)})`);
  }
  const version: unknown = data?.schema_version;
  if (typeof version === "number" && version > SCHEMA_VERSION) {
    throw bad(
      `has schema version ${version}, this runtime reads up to ${SCHEMA_VERSION}`,
      "upgrade sam-edge",
    );
  }
  try {
    validate(data, schema);
  } catch (error) {
    throw bad(`is not valid: ${reason(error)}`);
  }
  if (data.mask.first_multimask >= data.mask.count)
    throw bad(`has first_multimask ${data.mask.first_multimask} of ${data.mask.count} masks`);
  const [height, width] = data.input.size;
  if (data.input.resize === "longest_side" && height !== width)
    throw bad(
      `has an input of ${height} by ${width}, into which images resized by their longest side do not fit`,
    );
  for (const variant of data.variants) checkVariant(variant, bad);
  if ((await sha256(new TextEncoder().encode(canonicalJson(text, "integrity")))) !== data.integrity) {
    throw new SamEdgeError(
      "integrity",
      `${name} was changed since it was exported; export or copy the bundle again`,
    );
  }
  return data;
}

function checkVariant(variant: Variant, bad: (what: string, next?: string) => SamEdgeError): void {
  for (const { path } of variant.files) {
    if (path.startsWith("/") || /[\\:\0]/.test(path) || path.split("/").includes(".."))
      throw bad(
        `names ${JSON.stringify(path)}, which is not a file inside the bundle`,
        "do not use a bundle from this source",
      );
  }
  if ((variant.scorer === undefined) !== (variant.upscaler === undefined))
    throw bad(`names only one of the decoder's stages of ${variant.id}`);
  for (const part of ["encoder", "decoder", ...STAGES] as const) {
    const graph = variant[part];
    if (graph === undefined) continue;
    const isListed = variant.files.some(
      ({ path }) => path === graph.path || path.startsWith(`${graph.path}/`),
    );
    if (!isListed) throw bad(`names ${graph.path} as the ${part} of ${variant.id}, but not among its files`);
  }
  for (const part of ["decoder", "scorer"] as const) {
    const inputs = variant[part]?.inputs;
    if (inputs && !inputs.some(({ name, shape }) => name === "point_coords" && shape.length > 0))
      throw bad(`has a ${part} of ${variant.id} that takes no point_coords`);
  }
  if (variant.absent_label !== undefined && fixedPoints(variant) === null)
    throw bad(
      `has a decoder of ${variant.id} that fills up with absent points, but takes any number of them`,
    );
}

/** How many points the decoder of `variant` was exported for; null for any number. */
export function fixedPoints(variant: Variant): number | null {
  const count = variant.decoder.inputs.find(({ name }) => name === "point_coords")?.shape[1];
  return typeof count === "number" && count >= 1 ? count : null;
}

/** The ONNX variants, which are those that run here. */
export function runnable(manifest: Manifest): Variant[] {
  return manifest.variants.filter(({ format }) => format === "onnx");
}

/**
 * The ONNX variant with that id, or the first one: of those for browsers, of those for any device, of all.
 *
 * Throws a `SamEdgeError` that lists what there is.
 */
export function chooseVariant(manifest: Manifest, id?: string): Variant {
  const here = runnable(manifest);
  const first =
    here.find(({ browser }) => browser !== undefined) ??
    here.find(({ accelerator }) => accelerator === undefined) ??
    here[0];
  const chosen = id === undefined ? first : here.find((variant) => variant.id === id);
  if (chosen === undefined) {
    const there = manifest.variants.map((variant) => variant.id).join(", ");
    throw new SamEdgeError(
      "manifest",
      `the bundle has no ONNX variant${id === undefined ? "" : ` ${id}`}; it has ${there}; ` +
        "export it again with --format onnx",
    );
  }
  return chosen;
}

/** The entry of `files` of a graph. */
export function fileOf(variant: Variant, path: string): File {
  const file = variant.files.find((one) => one.path === path);
  if (file === undefined)
    throw new SamEdgeError("manifest", `${path} of ${variant.id} has no hash; export the bundle again`);
  return file;
}

/** `input` at the size of the coordinate square: prompts go to its pixels and masks come from them. */
export function square(manifest: Manifest): InputRules {
  return { ...manifest.input, size: manifest.prompt.coordinate_size };
}
