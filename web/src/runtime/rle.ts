/** COCO run-length encoding (RLE) of masks: column-major runs, zeros first; as in sam_edge/imaging/rle.py. */

import type { Size } from "./image.ts";

/** Uncompressed RLE: lengths of alternating runs of 0 and 1. */
export interface Rle {
  readonly size: [height: number, width: number];
  readonly counts: number[];
}

/** Compressed RLE, as in COCO annotation files. */
export interface CocoRle {
  readonly size: [height: number, width: number];
  readonly counts: string;
}

/**
 * Encodes a mask (h, w), nonzero inside, that lies at row `top` and column `left` of an image of
 * (height, width). By default the mask covers the whole image.
 */
export function encode(
  mask: Uint8Array,
  [h, w]: Size,
  [top, left]: readonly [number, number] = [0, 0],
  [height, width]: Size = [h, w],
): Rle {
  const counts: number[] = [];
  let from = 0;
  let end = 0;
  for (let x = 0; x < w; x++) {
    for (let y = 0; y < h; y++) {
      if (!mask[y * w + x]) continue;
      const start = (left + x) * height + top + y;
      while (y < h && mask[y * w + x]) y++;
      const stop = (left + x) * height + top + y;
      // A run that ends at the bottom of a column may continue at the top of the next one.
      if (start !== end || counts.length === 0) {
        if (counts.length > 0) counts.push(end - from);
        counts.push(start - end);
        from = start;
      }
      end = stop;
    }
  }
  if (counts.length > 0) counts.push(end - from);
  if (end < height * width || counts.length === 0) counts.push(height * width - end);
  return { size: [height, width], counts };
}

/** Compresses an RLE as `pycocotools` does: differences to the run two before, in 5-bit groups as characters. */
export function compress({ size, counts }: Rle): CocoRle {
  let text = "";
  for (const [i, run] of counts.entries()) {
    let value = i > 2 ? run - counts[i - 2] : run;
    for (let more = true; more; ) {
      const group = value & 31;
      value >>= 5;
      more = value !== (group & 16 ? -1 : 0);
      text += String.fromCharCode((group | (more ? 32 : 0)) + 48);
    }
  }
  return { size, counts: text };
}

/** Decodes an RLE to a mask (H, W), 1 inside. */
export function decode({ size: [height, width], counts }: Rle): Uint8Array<ArrayBuffer> {
  const mask = new Uint8Array(height * width);
  let at = 0;
  for (const [i, run] of counts.entries()) {
    if (i % 2 === 1)
      for (let k = at; k < at + run; k++) mask[(k % height) * width + Math.floor(k / height)] = 1;
    at += run;
  }
  return mask;
}

/** Returns the area of the mask in pixels. */
export function area({ counts }: Rle): number {
  return counts.reduce((sum, run, i) => sum + (i % 2 ? run : 0), 0);
}

/** Returns the bounding box [x, y, width, height] of a mask (h, w); zeros if the mask is empty. */
export function bbox(mask: Uint8Array, [h, w]: Size): [number, number, number, number] {
  let [left, right, top, bottom] = [w, -1, h, -1];
  for (let y = 0; y < h; y++) {
    for (let x = 0; x < w; x++) {
      if (!mask[y * w + x]) continue;
      left = Math.min(left, x);
      right = Math.max(right, x);
      top = Math.min(top, y);
      bottom = y;
    }
  }
  return right < 0 ? [0, 0, 0, 0] : [left, top, right - left + 1, bottom - top + 1];
}
