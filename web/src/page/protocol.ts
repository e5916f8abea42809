/** Messages between the page and its worker. */

import type { Device, ErrorKind, MaskRecord, Prompt, Size } from "../runtime/index.ts";

/** Which model to load, and how to run it. */
export interface ModelOptions {
  /** URL of the bundle's folder. */
  readonly bundle: string;
  readonly variant: string;
  /** "auto": the device that decodes faster, measured at start. */
  readonly backend: Device | "auto";
  /** Number of wasm threads; 0 chooses automatically. */
  readonly threads: number;
}

/** The loaded model, and how it runs. */
export interface LoadedModel {
  readonly device: Device;
  readonly threads: number;
  /** Median latency of a decode, in milliseconds, on each device that was measured. */
  readonly measured: Partial<Record<Device, number>>;
  /** Reasons why a device was not used. */
  readonly notes: string[];
  readonly name: string;
  /** Size of the encoder's file in bytes. */
  readonly encoderBytes: number;
}

/** Candidate masks of one prompt. */
export interface DecodedMasks {
  readonly scores: number[];
  /** Index of the candidate with the best score. */
  readonly best: number;
  /** The mask (H, W) of each requested candidate; null for the others. */
  readonly masks: (Uint8Array<ArrayBuffer> | null)[];
  /** (H, W) of the masks. */
  readonly size: Size;
  /** Latency of the decoder, without upscaling. */
  readonly milliseconds: number;
}

/** Functions of the worker. `decode` without a size returns masks at the image's original size. */
export interface Methods {
  loadModel(options: ModelOptions): LoadedModel;
  encode(image: { data: Uint8ClampedArray; width: number; height: number }): undefined;
  useEmbedding(bytes: Uint8Array<ArrayBuffer>): { size: Size };
  decode(prompt: Prompt, size: Size | null, which: "best" | "all" | number): DecodedMasks;
  everything(pointsPerSide: number): { records: MaskRecord[]; milliseconds: number };
  cancel(): undefined;
}

/** A call of a worker's function. */
export interface Request {
  readonly id: number;
  readonly method: keyof Methods;
  readonly args: unknown[];
}

/** Result, error or progress of a call. */
export type Answer =
  | { readonly id: number; readonly result: unknown }
  | { readonly id: number; readonly error: { readonly kind: ErrorKind; readonly message: string } }
  | { readonly id: number; readonly progress: string | number };
