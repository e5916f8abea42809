/** Reads the results written by tests/reference.py, and compares masks. */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { inject } from "vitest";
import type { Image } from "../src/runtime/index.ts";

export interface ReferenceImage {
  width: number;
  height: number;
  rgb: string;
}

export interface ReferencePrompt {
  image: number;
  points: [number, number][] | null;
  labels: number[] | null;
  box: [number, number, number, number] | null;
  mask_input: string | null;
  masks: string;
  count: number;
  scores: number[];
  single: string;
}

export interface ReferenceRecord {
  segmentation: { size: [number, number]; counts: string };
  area: number;
  predicted_iou: number;
  stability_score: number;
  point_coords: [[number, number]];
}

export type ReferenceArrays = Record<string, { dims: number[]; data: string }>;

export interface Reference {
  model_id: string;
  images: ReferenceImage[];
  inputs: string[];
  // biome-ignore lint/suspicious/noExplicitAny: rules as in the manifest, only those for preprocessing
  preprocessed: { image: ReferenceImage; rules: any; images: string }[];
  // biome-ignore lint/suspicious/noExplicitAny: invalid on purpose
  bad_prompts: { prompt: any; message: string }[];
  variants: Record<
    string,
    {
      gate: { mean_iou: number; min_iou: number };
      embeddings: ReferenceArrays[];
      prompts: ReferencePrompt[];
      everything: ReferenceRecord[][];
      photo: ReferenceImage & {
        embedding: ReferenceArrays;
        point: [number, number];
        point_mask: string;
        box: [number, number, number, number];
        box_mask: string;
        everything: ReferenceRecord[];
      };
    }
  >;
}

export const bundle = inject("bundle");

export const reference: Reference = JSON.parse(
  readFileSync(join(inject("reference"), "reference.json"), "utf8"),
);

/** Reads a file of the reference folder. */
export function bytes(name: string): Uint8Array<ArrayBuffer> {
  return new Uint8Array(readFileSync(join(inject("reference"), name)));
}

/** Reads a file of float32 values. */
export function floats(name: string): Float32Array {
  return new Float32Array(bytes(name).buffer);
}

/** Reads a reference image. */
export function image({ width, height, rgb }: ReferenceImage): Image {
  return { width, height, data: bytes(rgb) };
}

/** Returns the `index`-th mask, of `pixels` pixels, in a file of packed bits. */
export function bits(name: string, pixels: number, index = 0): Uint8Array {
  const packed = bytes(name);
  return Uint8Array.from({ length: pixels }, (_, i) => {
    const at = index * pixels + i;
    return (packed[at >> 3] >> (7 - (at & 7))) & 1;
  });
}

/** Returns the IoU of two masks; 1 if both are empty. */
export function iou(a: Uint8Array, b: Uint8Array): number {
  if (a.length !== b.length) throw new Error(`masks of ${a.length} and ${b.length} pixels`);
  let both = 0;
  let either = 0;
  for (let i = 0; i < a.length; i++) {
    if (a[i] && b[i]) both++;
    if (a[i] || b[i]) either++;
  }
  return either === 0 ? 1 : both / either;
}

/** Decodes a compressed COCO RLE as pycocotools does: (H, W), 1 inside the mask. */
export function maskOf({ size: [height, width], counts }: { size: [number, number]; counts: string }) {
  const runs: number[] = [];
  for (let at = 0; at < counts.length; ) {
    let value = 0;
    let shift = 0;
    let group: number;
    do {
      group = counts.charCodeAt(at++) - 48;
      value |= (group & 31) << shift;
      shift += 5;
    } while (group & 32);
    if (group & 16) value |= -1 << shift;
    runs.push(runs.length > 2 ? value + runs[runs.length - 2] : value);
  }
  const mask = new Uint8Array(height * width);
  let at = 0;
  for (const [i, run] of runs.entries()) {
    if (i % 2) for (let k = at; k < at + run; k++) mask[(k % height) * width + Math.floor(k / height)] = 1;
    at += run;
  }
  if (at !== height * width) throw new Error(`runs of ${at} pixels in ${height} by ${width}`);
  return mask;
}
