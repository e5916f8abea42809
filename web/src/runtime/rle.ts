/** COCO run-length encoding of masks, column by column, beginning with the zeros; as sam_edge/imaging/rle.py. */

import type { Size } from "./image.ts";

export interface Rle {
  readonly size: [height: number, width: number];
  readonly counts: number[];
}

export interface CocoRle {
  readonly size: [height: number, width: number];
  readonly counts: string;
}

/** A mask (h, w) at row `top` and column `left` of an image of `size`; of the whole image if not given. */
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
      // A run that ends at a column's foot may go on at the next one's head.
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

/** As `pycocotools` writes it: runs as differences to the one two before, in 5-bit groups as characters. */
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

/** (H, W), 1 in the mask. */
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

/** Pixels of the mask. */
export function area({ counts }: Rle): number {
  return counts.reduce((sum, run, i) => sum + (i % 2 ? run : 0), 0);
}

/** [x, y, width, height] of the smallest box around a mask (h, w); zeros if it is empty. */
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
