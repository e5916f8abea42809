/** Runs bundles made by `sam-edge export` in browsers and in Node.js, with ONNX Runtime Web. */

export { type ErrorKind, errorMessage, SamEdgeError } from "./errors.ts";
export { type EverythingOptions, everything, type MaskRecord, nms, pointGrid } from "./everything.ts";
export type { Image, Size } from "./image.ts";
export {
  chooseVariant,
  type File,
  findFile,
  type Manifest,
  onnxVariants,
  readManifest,
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
export { type Bytes, httpSource, readVerified, type Source, verifyFile } from "./source.ts";
export type { Session, Tensor, Tensors } from "./tensor.ts";
