/**
 * From low-resolution logits to masks at the image's size; as sam_edge/imaging/postprocess.py.
 *
 * The published predictor interpolates twice: to the encoder's input, then, without its padding, to the
 * original image. Both are linear along each axis, so an output depends on a few inputs a side.
 */

import type { Size } from "./image.ts";
import { between } from "./interpolate.ts";

/** For each output, the first and the last input that it depends on, and `taps` weights from the first. */
interface Axis {
  readonly first: Int32Array;
  readonly last: Int32Array;
  readonly weights: Float32Array;
  readonly taps: number;
}

/** Up to the padded input, crop the padding, on to the original: one axis. */
function composed(lowRes: number, padded: number, resized: number, original: number): Axis {
  const first = new Int32Array(original);
  const last = new Int32Array(original);
  let taps = 1;
  for (let i = 0; i < original; i++) {
    const [low, high] = between(resized, original, i);
    first[i] = between(lowRes, padded, low)[0];
    last[i] = between(lowRes, padded, high)[1];
    taps = Math.max(taps, last[i] - first[i] + 1);
  }
  const sums = new Float64Array(original * taps);
  for (let i = 0; i < original; i++) {
    const [low, high, weight] = between(resized, original, i);
    for (const [at, share] of [
      [low, 1 - weight],
      [high, weight],
    ]) {
      const [below, above, part] = between(lowRes, padded, at);
      sums[i * taps + below - first[i]] += share * (1 - part);
      sums[i * taps + above - first[i]] += share * part;
    }
  }
  return { first, last, weights: Float32Array.from(sums), taps };
}

/** How masks of one image are brought to a size. */
export interface Upscaling {
  readonly lowResSize: Size;
  readonly originalSize: Size;
  readonly rows: Axis;
  readonly columns: Axis;
}

/** Every size is [height, width]: of the logits, the encoder's input with padding, the image in it, the image. */
export function upscaling(lowRes: Size, input: Size, resized: Size, original: Size): Upscaling {
  const [rows, columns] = [0, 1].map((i) => composed(lowRes[i], input[i], resized[i], original[i]));
  return { lowResSize: lowRes, originalSize: original, rows, columns };
}

/** The part of a mask outside which it is empty. */
export interface Window {
  readonly top: number;
  readonly left: number;
  readonly height: number;
  readonly width: number;
  /** (height, width), 1 in the mask. */
  readonly mask: Uint8Array<ArrayBuffer>;
  /** Pixels above the threshold raised, and lowered, by the offset. */
  readonly inner: number;
  readonly outer: number;
}

/** IoU of the mask at the raised and at the lowered threshold; NaN if both are empty. */
export function stabilityScore({ inner, outer }: Window): number {
  return inner / outer;
}

/** (h, w) logits -> (H, W), 1 where the logits at the original size are above `threshold`. */
export function mask(up: Upscaling, logits: Float32Array, threshold: number): Uint8Array<ArrayBuffer> {
  const [height, width] = up.originalSize;
  return computed(up, logits, threshold, 0, [0, height], [0, width]).mask;
}

/**
 * One mask, computed only where it can be: where it depends on a logit above `threshold - offset`.
 *
 * Interpolation never goes above its largest input, so nothing is left out.
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
  const rows = touching(up.rows, top, bottom);
  const columns = touching(up.columns, left, right);
  return computed(up, logits, threshold, offset, rows, columns);
}

/** The outputs, from the first to before the last, that depend on the inputs `from` to `to`. */
function touching(axis: Axis, from: number, to: number): [number, number] {
  let start = 0;
  let stop = axis.first.length;
  while (start < stop && axis.last[start] < from) start++;
  while (stop > start && axis.first[stop - 1] > to) stop--;
  return [start, stop];
}

function computed(
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
  const found = new Uint8Array(height * width);
  if (found.length === 0) return { top: 0, left: 0, height: 0, width: 0, mask: found, inner: 0, outer: 0 };
  const firstRow = up.rows.first[top];
  const lastRow = up.rows.last[bottom - 1];
  const wide = new Float32Array((lastRow - firstRow + 1) * width);
  for (let y = firstRow; y <= lastRow; y++) {
    const row = logits.subarray(y * w, (y + 1) * w);
    for (let x = 0, out = (y - firstRow) * width; x < width; x++) {
      const weights = (left + x) * taps;
      const first = up.columns.first[left + x];
      const count = up.columns.last[left + x] - first + 1;
      let sum = 0;
      for (let k = 0; k < count; k++) sum += up.columns.weights[weights + k] * row[first + k];
      wide[out++] = sum;
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
      for (let x = 0; x < width; x++) values[x] += weight * wide[from + x];
    }
    for (let x = 0, out = y * width; x < width; x++) {
      const value = values[x];
      if (value > raised) inner++;
      if (value > lowered) outer++;
      found[out++] = value > threshold ? 1 : 0;
    }
  }
  return { top, left, height, width, mask: found, inner, outer };
}
