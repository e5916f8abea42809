/**
 * Antialiased bilinear resizing, bit-exact with Pillow's, with which SAM was trained; as in
 * sam_edge/imaging/resample.py.
 */

import { channelCount, type Image, type Size } from "./image.ts";

const PRECISION_BITS = 32 - 8 - 2;
const ROUNDING = 1 << (PRECISION_BITS - 1);

/** For each output along one axis: its first source index, number of sources and fixed-point weights. */
interface Taps {
  readonly first: Int32Array;
  readonly count: Int32Array;
  readonly weights: Int32Array;
  /** Weights of output `i` start at `i * stride`. */
  readonly stride: number;
}

/**
 * Returns the weights that resize one axis from `before` pixels to `after`.
 *
 * Repeats `precompute_coeffs` and `normalize_coeffs_8bpc` of Pillow's Resample.c operation by operation, so
 * that the rounded weights are equal.
 */
function resamplingTaps(before: number, after: number): Taps {
  const scale = before / after;
  const support = Math.max(scale, 1);
  const stride = Math.ceil(support) * 2 + 1;
  const first = new Int32Array(after);
  const count = new Int32Array(after);
  const weights = new Int32Array(after * stride);
  const floats = new Float64Array(stride);
  for (let i = 0; i < after; i++) {
    const centre = (i + 0.5) * scale;
    first[i] = Math.max(0, Math.trunc(centre - support + 0.5));
    count[i] = Math.min(before, Math.trunc(centre + support + 0.5)) - first[i];
    let sum = 0;
    for (let k = 0; k < count[i]; k++) {
      const x = (first[i] + k - centre + 0.5) * (1 / support);
      floats[k] = Math.max(0, 1 - Math.abs(x));
      sum += floats[k];
    }
    for (let k = 0; k < count[i]; k++)
      weights[i * stride + k] = Math.trunc((floats[k] / sum) * (1 << PRECISION_BITS) + 0.5);
  }
  return { first, count, weights, stride };
}

/** Resizes an image to `size`: RGB uint8, alpha dropped. Horizontal pass first, then vertical, as in Pillow. */
export function resizeBilinear(image: Image, size: Size): Image & { readonly data: Uint8Array } {
  const channels = channelCount(image);
  const { data, width: oldWidth, height: oldHeight } = image;
  const [height, width] = size;
  const horizontal = new Uint8Array(oldHeight * width * 3);
  const across = resamplingTaps(oldWidth, width);
  for (let y = 0, out = 0; y < oldHeight; y++) {
    for (let x = 0; x < width; x++) {
      let red = ROUNDING;
      let green = ROUNDING;
      let blue = ROUNDING;
      const weights = x * across.stride;
      let at = (y * oldWidth + across.first[x]) * channels;
      for (let k = 0; k < across.count[x]; k++, at += channels) {
        const weight = across.weights[weights + k];
        red += weight * data[at];
        green += weight * data[at + 1];
        blue += weight * data[at + 2];
      }
      horizontal[out++] = red >> PRECISION_BITS;
      horizontal[out++] = green >> PRECISION_BITS;
      horizontal[out++] = blue >> PRECISION_BITS;
    }
  }
  const down = resamplingTaps(oldHeight, height);
  const row = width * 3;
  const result = new Uint8Array(height * row);
  const sums = new Int32Array(row);
  for (let y = 0; y < height; y++) {
    sums.fill(ROUNDING);
    for (let k = 0; k < down.count[y]; k++) {
      const weight = down.weights[y * down.stride + k];
      const from = (down.first[y] + k) * row;
      for (let x = 0; x < row; x++) sums[x] += weight * horizontal[from + x];
    }
    for (let x = 0, out = y * row; x < row; x++) result[out++] = sums[x] >> PRECISION_BITS;
  }
  return { data: result, width, height };
}
