/** What the page asks of its worker, and what comes back. */

import type { Device, ErrorKind, MaskRecord, Prompt, Size } from "../runtime/index.ts";

export interface StartOptions {
  /** URL of the bundle's folder. */
  readonly bundle: string;
  readonly variant: string;
  /** "auto": the faster, measured. */
  readonly backend: Device | "auto";
  /** Threads of wasm; 0: as many as help. */
  readonly threads: number;
}

export interface Started {
  readonly device: Device;
  readonly threads: number;
  /** Median milliseconds of a decode on each device that was measured. */
  readonly measured: Partial<Record<Device, number>>;
  /** Why a device was not taken that could have been. */
  readonly notes: string[];
  readonly model: string;
  readonly maskCount: number;
  readonly encoderBytes: number;
}

export interface DecodedMasks {
  readonly scores: number[];
  readonly best: number;
  /** For each candidate asked for, its mask (H, W) at the size asked for; else null. */
  readonly masks: (Uint8Array<ArrayBuffer> | null)[];
  readonly size: Size;
  /** Of the decoder alone. */
  readonly milliseconds: number;
}

/** The worker's functions. */
export interface Methods {
  start(options: StartOptions): Started;
  encode(image: { data: Uint8ClampedArray; width: number; height: number }): { milliseconds: number };
  useEmbedding(bytes: Uint8Array<ArrayBuffer>): { size: Size };
  decode(prompt: Prompt, size: Size | null, which: "best" | "all" | number): DecodedMasks;
  everything(pointsPerSide: number): { records: MaskRecord[]; milliseconds: number };
  cancel(): undefined;
}

export interface Request {
  readonly id: number;
  readonly method: keyof Methods;
  readonly args: unknown[];
}

export type Answer =
  | { readonly id: number; readonly result: unknown }
  | { readonly id: number; readonly error: { readonly kind: ErrorKind; readonly message: string } }
  | { readonly id: number; readonly progress: string | number };
