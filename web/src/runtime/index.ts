/** SAM in the browser and in Node: runs the bundles that `sam-edge export` makes. */

export { type ErrorKind, reason, SamEdgeError } from "./errors.ts";
export { type EverythingOptions, everything, type MaskRecord, nms, pointGrid } from "./everything.ts";
export type { Image, Size } from "./image.ts";
export {
  chooseVariant,
  type File,
  fileOf,
  type Manifest,
  readManifest,
  runnable,
  type Variant,
} from "./manifest.ts";
export type { Device, OrtModule } from "./ort.ts";
export { mask, maskWindow, stabilityScore, type Upscaling, type Window } from "./postprocess.ts";
export { letterbox, normalize, type Resized, resize, resizedSize } from "./preprocess.ts";
export { type EncodedPrompts, encodePrompts, type Prompt } from "./prompts.ts";
export { resizeBilinear } from "./resample.ts";
export * as rle from "./rle.ts";
export { readEmbedding } from "./safetensors.ts";
export {
  type Candidate,
  type Decoded,
  type ImageEmbedding,
  type LoadOptions,
  load,
  type Masks,
  plane,
  Sam,
} from "./sam.ts";
export { sha256 } from "./sha256.ts";
export { type Bytes, check, httpSource, readChecked, type Source } from "./source.ts";
export type { Session, Tensor, Tensors } from "./tensor.ts";
