/** From an image to the encoder's input; as sam_edge/imaging/preprocess.py. */

import { channelsOf, type Image, type Size } from "./image.ts";
import { between } from "./interpolate.ts";
import type { InputRules } from "./manifest.ts";
import { resizeBilinear } from "./resample.ts";

/** RGB row by row, 0 to 255; of floats where it was not rounded. */
export interface Resized {
  readonly data: Uint8Array | Float32Array;
  readonly width: number;
  readonly height: number;
}

/** [h, w] of an image inside the encoder's input, before padding. */
export function resizedSize([height, width]: Size, rules: InputRules): Size {
  if (rules.resize === "stretch") return rules.size;
  const scale = Math.max(...rules.size) / Math.max(height, width);
  const side = (length: number) => Math.max(1, Math.trunc(length * scale + 0.5));
  return [side(height), side(width)];
}

/** The image as it will be inside the encoder's input. Throws a `SamEdgeError`: not an image. */
export function resize(image: Image, rules: InputRules): Resized {
  channelsOf(image);
  const size = resizedSize([image.height, image.width], rules);
  return rules.antialias ? resizeBilinear(image, size) : interpolated(image, size);
}

function interpolated(image: Image, [height, width]: Size): Resized {
  const channels = channelsOf(image);
  const columns = Array.from({ length: width }, (_, x) => between(image.width, width, x));
  const data = new Float32Array(height * width * 3);
  for (let y = 0, out = 0; y < height; y++) {
    const [top, bottom, down] = between(image.height, height, y);
    for (let x = 0; x < width; x++) {
      const [left, right, across] = columns[x];
      for (let c = 0; c < 3; c++) {
        const pixel = (row: number, column: number) =>
          image.data[(row * image.width + column) * channels + c];
        const upper = (1 - across) * pixel(top, left) + across * pixel(top, right);
        const lower = (1 - across) * pixel(bottom, left) + across * pixel(bottom, right);
        data[out++] = (1 - down) * upper + down * lower;
      }
    }
  }
  return { data, width, height };
}

/** Normalised, channel by channel, padded on the right and at the bottom: (1, 3, S, S). */
export function normalize(resized: Resized, rules: InputRules): Float32Array<ArrayBuffer> {
  const [rows, columns] = rules.size;
  const images = new Float32Array(3 * rows * columns).fill(rules.pad_value);
  const { fround } = Math;
  for (let c = 0; c < 3; c++) {
    const [mean, std] = [fround(rules.mean[c]), fround(rules.std[c])];
    // Each step rounded to 32 bits, as in NumPy.
    const levels = Float32Array.from({ length: 256 }, (_, level) => fround(level - mean) / std);
    const whole = resized.data instanceof Uint8Array;
    for (let y = 0; y < resized.height; y++) {
      let from = y * resized.width * 3 + c;
      let to = (c * rows + y) * columns;
      for (let x = 0; x < resized.width; x++, from += 3) {
        const value = resized.data[from];
        images[to++] = whole ? levels[value] : fround(value - mean) / std;
      }
    }
  }
  return images;
}

/** Whole levels, padded with zeros, for encoders that normalise themselves: (1, S, S, 3). */
export function letterbox(resized: Resized, rules: InputRules): Uint8Array<ArrayBuffer> {
  const [rows, columns] = rules.size;
  const boxed = new Uint8Array(rows * columns * 3);
  for (let y = 0; y < resized.height; y++) {
    for (let x = 0; x < resized.width * 3; x++)
      boxed[y * columns * 3 + x] = roundHalfToEven(resized.data[y * resized.width * 3 + x]);
  }
  return boxed;
}

function roundHalfToEven(value: number): number {
  const floor = Math.floor(value);
  const rest = value - floor;
  return rest < 0.5 || (rest === 0.5 && floor % 2 === 0) ? floor : floor + 1;
}
