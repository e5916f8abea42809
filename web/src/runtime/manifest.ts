/** Reads `manifest.json`, the description of a bundle and its model, as in sam_edge/bundle/manifest.py. */

import { canonicalJson } from "./canonical.ts";
import { errorMessage, SamEdgeError } from "./errors.ts";
import { schema } from "./manifest.schema.ts";
import type { File, Manifest, Variant } from "./manifest.types.ts";
import { sha256 } from "./sha256.ts";
import type { Source } from "./source.ts";
import { validate } from "./validate.ts";

export type { File, Graph, Manifest, Variant } from "./manifest.types.ts";
/** How images are resized and normalised for the encoder. */
export type InputRules = Manifest["input"];
/** Which prompts the decoder accepts, and in which coordinates. */
export type PromptRules = Manifest["prompt"];

/** Newest schema version that this runtime reads. */
export const SCHEMA_VERSION = 1;
const STAGES = ["scorer", "upscaler"] as const;

/**
 * Reads and validates the manifest of a bundle.
 *
 * Throws a `SamEdgeError` if it is not JSON, has a newer schema version, violates the schema, lists files
 * outside the bundle or without a hash, or was changed after the export.
 */
export async function readManifest(source: Source): Promise<Manifest> {
  const bytes = await source.read("manifest.json");
  const name = `manifest.json of ${source.name}`;
  const manifestError = (what: string, next = "export the bundle again") =>
    new SamEdgeError("manifest", `${name} ${what}; ${next}`);
  let text: string;
  let data: Manifest;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    data = JSON.parse(text);
  } catch (error) {
    throw manifestError(`is not valid JSON (${errorMessage(error)})`);
  }
  const version: unknown = data?.schema_version;
  if (typeof version === "number" && version > SCHEMA_VERSION) {
    throw manifestError(
      `has schema version ${version}, this runtime reads up to ${SCHEMA_VERSION}`,
      "upgrade sam-edge",
    );
  }
  try {
    validate(data, schema);
  } catch (error) {
    throw manifestError(`is not valid: ${errorMessage(error)}`);
  }
  if (data.mask.first_multimask >= data.mask.count)
    throw manifestError(`has first_multimask ${data.mask.first_multimask} of ${data.mask.count} masks`);
  const [height, width] = data.input.size;
  if (data.input.resize === "longest_side" && height !== width)
    throw manifestError(
      `has an input of ${height} by ${width}; expected a square for images resized by their longest side`,
    );
  for (const variant of data.variants) checkVariant(variant, manifestError);
  if ((await sha256(new TextEncoder().encode(canonicalJson(text, "integrity")))) !== data.integrity) {
    throw new SamEdgeError(
      "integrity",
      `${name} was changed since it was exported; export or copy the bundle again`,
    );
  }
  return data;
}

function checkVariant(variant: Variant, manifestError: (what: string, next?: string) => SamEdgeError): void {
  for (const { path } of variant.files) {
    if (path.startsWith("/") || /[\\:\0]/.test(path) || path.split("/").includes(".."))
      throw manifestError(
        `names ${JSON.stringify(path)}, which is not a file inside the bundle`,
        "do not use a bundle from this source",
      );
  }
  if ((variant.scorer === undefined) !== (variant.upscaler === undefined))
    throw manifestError(`names only one of the decoder's stages of ${variant.id}`);
  for (const part of ["encoder", "decoder", ...STAGES] as const) {
    const graph = variant[part];
    if (graph === undefined) continue;
    const isListed = variant.files.some(
      ({ path }) => path === graph.path || path.startsWith(`${graph.path}/`),
    );
    if (!isListed)
      throw manifestError(
        `names ${graph.path} as the ${part} of ${variant.id}, but does not list it in its files`,
      );
  }
  for (const part of ["decoder", "scorer"] as const) {
    const inputs = variant[part]?.inputs;
    if (inputs && !inputs.some(({ name, shape }) => name === "point_coords" && shape.length > 0))
      throw manifestError(`has a ${part} of ${variant.id} without an input point_coords`);
  }
  if (variant.absent_label !== undefined && fixedPointCount(variant) === null)
    throw manifestError(
      `has an absent_label for ${variant.id}, whose decoder does not have a fixed number of points`,
    );
}

/** Returns the number of points that a variant's decoder was exported for; null if it is dynamic. */
export function fixedPointCount(variant: Variant): number | null {
  const count = variant.decoder.inputs.find(({ name }) => name === "point_coords")?.shape[1];
  return typeof count === "number" && count >= 1 ? count : null;
}

/** Returns the ONNX variants, the only ones that this runtime can run. */
export function onnxVariants(manifest: Manifest): Variant[] {
  return manifest.variants.filter(({ format }) => format === "onnx");
}

/**
 * Returns the ONNX variant with an id. Without an id, the first one made for browsers, else the first one for
 * any device, else the first one.
 *
 * Throws a `SamEdgeError` that lists the bundle's variants if none matches.
 */
export function chooseVariant(manifest: Manifest, id?: string): Variant {
  const variants = onnxVariants(manifest);
  const first =
    variants.find(({ browser }) => browser !== undefined) ??
    variants.find(({ accelerator }) => accelerator === undefined) ??
    variants[0];
  const chosen = id === undefined ? first : variants.find((variant) => variant.id === id);
  if (chosen === undefined) {
    const ids = manifest.variants.map((variant) => variant.id).join(", ");
    throw new SamEdgeError(
      "manifest",
      `the bundle has no ONNX variant${id === undefined ? "" : ` ${id}`}; it has ${ids}; ` +
        "export it again with --format onnx",
    );
  }
  return chosen;
}

/** Returns the entry in `files`, with size and hash, of a variant's file. Throws a `SamEdgeError` if absent. */
export function findFile(variant: Variant, path: string): File {
  const file = variant.files.find((listed) => listed.path === path);
  if (file === undefined)
    throw new SamEdgeError("manifest", `${path} of ${variant.id} has no hash; export the bundle again`);
  return file;
}

/** Returns the input rules at the size of the prompt coordinate space, in which prompts and masks are scaled. */
export function coordinateSpace(manifest: Manifest): InputRules {
  return { ...manifest.input, size: manifest.prompt.coordinate_size };
}
