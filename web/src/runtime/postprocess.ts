/**
 * Upscales low-resolution logits to masks at the image's size, as in sam_edge/imaging/postprocess.py.
 *
 * The published predictor interpolates twice: to the encoder's input, then, with the padding cropped, to the
 * original image. Both steps are linear and separable, so they are composed into one filter per axis.
 */

import type { Size } from "./image.ts";
import { bilinearTaps } from "./interpolate.ts";

/** A filter along one axis: for each output, its first and last source index, and `taps` weights. */
interface Axis {
  readonly first: Int32Array;
  readonly last: Int32Array;
  readonly weights: Float32Array;
  readonly taps: number;
}

/** Composes upscaling to the padded input, cropping and resizing to the original size, along one axis. */
function composeResizes(lowRes: number, padded: number, resized: number, original: number): Axis {
  const first = new Int32Array(original);
  const last = new Int32Array(original);
  let taps = 1;
  for (let i = 0; i < original; i++) {
    const [low, high] = bilinearTaps(resized, original, i);
    first[i] = bilinearTaps(lowRes, padded, low)[0];
    last[i] = bilinearTaps(lowRes, padded, high)[1];
    taps = Math.max(taps, last[i] - first[i] + 1);
  }
  const sums = new Float64Array(original * taps);
  for (let i = 0; i < original; i++) {
    const [low, high, weight] = bilinearTaps(resized, original, i);
    for (const [at, share] of [
      [low, 1 - weight],
      [high, weight],
    ]) {
      const [below, above, part] = bilinearTaps(lowRes, padded, at);
      sums[i * taps + below - first[i]] += share * (1 - part);
      sums[i * taps + above - first[i]] += share * part;
    }
  }
  return { first, last, weights: Float32Array.from(sums), taps };
}

/** Filters that upscale the logits of one image, (h, w), to a size (H, W). */
export interface Upscaling {
  readonly lowResSize: Size;
  readonly originalSize: Size;
  readonly rows: Axis;
  readonly columns: Axis;
}

/**
 * Returns the filters that upscale logits to masks. All sizes are [height, width] in pixels.
 *
 * `lowRes` is the logits' size, `input` the encoder's input with padding, `resized` the image inside it, and
 * `original` the output.
 */
export function composeUpscaling(lowRes: Size, input: Size, resized: Size, original: Size): Upscaling {
  const [rows, columns] = [0, 1].map((i) => composeResizes(lowRes[i], input[i], resized[i], original[i]));
  return { lowResSize: lowRes, originalSize: original, rows, columns };
}

/** Bounding window of a mask at the original size; the mask is empty outside it. */
export interface Window {
  readonly top: number;
  readonly left: number;
  readonly height: number;
  readonly width: number;
  /** (height, width), 1 inside the mask. */
  readonly mask: Uint8Array<ArrayBuffer>;
  /** Number of pixels above threshold + offset. */
  readonly inner: number;
  /** Number of pixels above threshold - offset. */
  readonly outer: number;
}

/** Returns the IoU of the masks at the raised and at the lowered threshold; NaN if both are empty. */
export function stabilityScore({ inner, outer }: Window): number {
  return inner / outer;
}

/** Returns the mask (H, W) of logits (h, w): 1 where the upscaled logits are above `threshold`, else 0. */
export function mask(up: Upscaling, logits: Float32Array, threshold: number): Uint8Array<ArrayBuffer> {
  const [height, width] = up.originalSize;
  return computeWindow(up, logits, threshold, 0, [0, height], [0, width]).mask;
}

/**
 * Computes a mask only in the window whose pixels depend on a logit above `threshold - offset`.
 *
 * Interpolation never exceeds its largest input, so the mask is empty outside the window.
 */
export function maskWindow(up: Upscaling, logits: Float32Array, threshold: number, offset: number): Window {
  const [h, w] = up.lowResSize;
  let [top, bottom, left, right] = [h, -1, w, -1];
  for (let y = 0; y < h; y++) {
    for (let x = 0; x < w; x++) {
      if (logits[y * w + x] > threshold - offset) {
        top = Math.min(top, y);
        bottom = y;
        left = Math.min(left, x);
        right = Math.max(right, x);
      }
    }
  }
  const rows = dependentOutputs(up.rows, top, bottom);
  const columns = dependentOutputs(up.columns, left, right);
  return computeWindow(up, logits, threshold, offset, rows, columns);
}

/** Returns the range [start, stop) of outputs that depend on any of the inputs `from` to `to`. */
function dependentOutputs(axis: Axis, from: number, to: number): [number, number] {
  let start = 0;
  let stop = axis.first.length;
  while (start < stop && axis.last[start] < from) start++;
  while (stop > start && axis.first[stop - 1] > to) stop--;
  return [start, stop];
}

/** Computes rows `top` to `bottom` and columns `left` to `right` of a mask, ends excluded. */
function computeWindow(
  up: Upscaling,
  logits: Float32Array,
  threshold: number,
  offset: number,
  [top, bottom]: [number, number],
  [left, right]: [number, number],
): Window {
  const w = up.lowResSize[1];
  const { taps } = up.columns;
  const [height, width] = [bottom - top, right - left];
  const windowMask = new Uint8Array(height * width);
  if (windowMask.length === 0)
    return { top: 0, left: 0, height: 0, width: 0, mask: windowMask, inner: 0, outer: 0 };
  const firstRow = up.rows.first[top];
  const lastRow = up.rows.last[bottom - 1];
  const horizontal = new Float32Array((lastRow - firstRow + 1) * width);
  for (let y = firstRow; y <= lastRow; y++) {
    const row = logits.subarray(y * w, (y + 1) * w);
    for (let x = 0, out = (y - firstRow) * width; x < width; x++) {
      const weights = (left + x) * taps;
      const first = up.columns.first[left + x];
      const count = up.columns.last[left + x] - first + 1;
      let sum = 0;
      for (let k = 0; k < count; k++) sum += up.columns.weights[weights + k] * row[first + k];
      horizontal[out++] = sum;
    }
  }
  const [raised, lowered] = [threshold + offset, threshold - offset];
  const values = new Float32Array(width);
  let inner = 0;
  let outer = 0;
  for (let y = 0; y < height; y++) {
    const first = up.rows.first[top + y];
    values.fill(0);
    for (let k = 0; k <= up.rows.last[top + y] - first; k++) {
      const weight = up.rows.weights[(top + y) * up.rows.taps + k];
      const from = (first - firstRow + k) * width;
      for (let x = 0; x < width; x++) values[x] += weight * horizontal[from + x];
    }
    for (let x = 0, out = y * width; x < width; x++) {
      const value = values[x];
      if (value > raised) inner++;
      if (value > lowered) outer++;
      windowMask[out++] = value > threshold ? 1 : 0;
    }
  }
  return { top, left, height, width, mask: windowMask, inner, outer };
}
