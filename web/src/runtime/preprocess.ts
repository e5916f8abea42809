/** Turns an image into the encoder's input, as in sam_edge/imaging/preprocess.py. */

import { channelCount, type Image, type Size } from "./image.ts";
import { bilinearTaps } from "./interpolate.ts";
import type { InputRules } from "./manifest.ts";
import { resizeBilinear } from "./resample.ts";

/** A resized image (height, width, 3), RGB, 0 to 255; float32 if interpolated without rounding. */
export interface Resized {
  readonly data: Uint8Array | Float32Array;
  readonly width: number;
  readonly height: number;
}

/** Returns the size [h, w] to which an image is resized, before padding. */
export function resizedSize([height, width]: Size, rules: InputRules): Size {
  if (rules.resize === "stretch") return rules.size;
  const scale = Math.max(...rules.size) / Math.max(height, width);
  const side = (length: number) => Math.max(1, Math.trunc(length * scale + 0.5));
  return [side(height), side(width)];
}

/** Resizes an image to its size inside the encoder's input. Throws a `SamEdgeError` for an invalid image. */
export function resize(image: Image, rules: InputRules): Resized {
  channelCount(image);
  const size = resizedSize([image.height, image.width], rules);
  return rules.antialias ? resizeBilinear(image, size) : interpolateBilinear(image, size);
}

/** Resizes bilinearly without antialiasing and without rounding. */
function interpolateBilinear(image: Image, [height, width]: Size): Resized {
  const channels = channelCount(image);
  const columns = Array.from({ length: width }, (_, x) => bilinearTaps(image.width, width, x));
  const data = new Float32Array(height * width * 3);
  for (let y = 0, out = 0; y < height; y++) {
    const [top, bottom, down] = bilinearTaps(image.height, height, y);
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

/** Normalises a resized image and pads it on the right and at the bottom: (1, 3, S, S) float32. */
export function normalize(resized: Resized, rules: InputRules): Float32Array<ArrayBuffer> {
  const [rows, columns] = rules.size;
  const images = new Float32Array(3 * rows * columns).fill(rules.pad_value);
  const { fround } = Math;
  for (let c = 0; c < 3; c++) {
    const [mean, std] = [fround(rules.mean[c]), fround(rules.std[c])];
    // Every step is rounded to float32, as in NumPy.
    const normalized = Float32Array.from({ length: 256 }, (_, value) => fround(value - mean) / std);
    const isUint8 = resized.data instanceof Uint8Array;
    for (let y = 0; y < resized.height; y++) {
      let from = y * resized.width * 3 + c;
      let to = (c * rows + y) * columns;
      for (let x = 0; x < resized.width; x++, from += 3) {
        const value = resized.data[from];
        images[to++] = isUint8 ? normalized[value] : fround(value - mean) / std;
      }
    }
  }
  return images;
}

/** Pads a resized image with zeros, for encoders that normalise in the graph: (1, S, S, 3) uint8. */
export function letterbox(resized: Resized, rules: InputRules): Uint8Array<ArrayBuffer> {
  const [rows, columns] = rules.size;
  const padded = new Uint8Array(rows * columns * 3);
  for (let y = 0; y < resized.height; y++) {
    for (let x = 0; x < resized.width * 3; x++)
      padded[y * columns * 3 + x] = roundHalfToEven(resized.data[y * resized.width * 3 + x]);
  }
  return padded;
}

function roundHalfToEven(value: number): number {
  const floor = Math.floor(value);
  const fraction = value - floor;
  return fraction < 0.5 || (fraction === 0.5 && floor % 2 === 0) ? floor : floor + 1;
}
