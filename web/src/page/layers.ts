/** Renders masks as layers to draw over the image. */

import type { MaskRecord, Size } from "../runtime/index.ts";

export type Colour = readonly [red: number, green: number, blue: number];

export const MASK_COLOUR: Colour = [59, 110, 255];
const PALETTE: readonly Colour[] = [
  [30, 144, 255],
  [255, 127, 14],
  [44, 200, 90],
  [214, 60, 160],
  [250, 200, 0],
];

/** Returns the colour of the n-th mask: a fixed palette first, then hues a golden ratio apart. */
export function colour(number: number): Colour {
  if (number < PALETTE.length) return PALETTE[number];
  const hue = ((number * 0.618034) % 1) * 6;
  const channel = (shift: number) => {
    const k = (shift + hue) % 6;
    return Math.round(242 * (1 - 0.75 * Math.max(0, Math.min(k, 4 - k, 1))));
  };
  return [channel(5), channel(3), channel(1)];
}

/** Renders a mask (H, W) as a translucent layer with a bright outline. */
export function maskLayer(mask: Uint8Array, [height, width]: Size, opacity = 1): OffscreenCanvas {
  const canvas = new OffscreenCanvas(width, height);
  const pixels = new ImageData(width, height);
  const outline = Math.max(1, Math.round(Math.max(width, height) / 700));
  const [red, green, blue] = MASK_COLOUR;
  const inside = (y: number, x: number) => y >= 0 && y < height && x >= 0 && x < width && mask[y * width + x];
  for (let y = 0, at = 0; y < height; y++) {
    for (let x = 0; x < width; x++, at++) {
      if (!mask[at]) continue;
      const edge = !(
        inside(y, x - outline) &&
        inside(y, x + outline) &&
        inside(y - outline, x) &&
        inside(y + outline, x)
      );
      const to = at * 4;
      pixels.data[to] = edge ? 255 : red;
      pixels.data[to + 1] = edge ? 255 : green;
      pixels.data[to + 2] = edge ? 255 : blue;
      pixels.data[to + 3] = (edge ? 235 : 115) * opacity;
    }
  }
  canvas.getContext("2d")?.putImageData(pixels, 0, 0);
  return canvas;
}

/** Returns a label map (H, W): 0 for background, else 1 + index of the record. Small masks are over large ones. */
export function labelMap(records: readonly MaskRecord[], [height, width]: Size): Uint16Array {
  const labels = new Uint16Array(height * width);
  const order = records.map((_, i) => i).sort((a, b) => records[b].area - records[a].area);
  for (const index of order) {
    let at = 0;
    for (const [i, run] of records[index].segmentation.counts.entries()) {
      if (i % 2)
        for (let k = at; k < at + run; k++) labels[(k % height) * width + Math.floor(k / height)] = index + 1;
      at += run;
    }
  }
  return labels;
}

/**
 * Renders a label map (height, width) as a layer of (tall, wide), one colour per mask.
 *
 * If a mask is `selected` (index from 0), the others are faint.
 */
export function labelLayer(
  labels: Uint16Array,
  [height, width]: Size,
  [tall, wide]: Size,
  selected: number | null,
): OffscreenCanvas {
  const canvas = new OffscreenCanvas(wide, tall);
  const pixels = new ImageData(wide, tall);
  const at = (y: number, x: number) =>
    labels[Math.floor(((y + 0.5) * height) / tall) * width + Math.floor(((x + 0.5) * width) / wide)];
  for (let y = 0, to = 0; y < tall; y++) {
    for (let x = 0; x < wide; x++, to += 4) {
      const label = at(y, x);
      if (label === 0) continue;
      const edge = (x + 1 < wide && at(y, x + 1) !== label) || (y + 1 < tall && at(y + 1, x) !== label);
      const faint = selected !== null && selected !== label - 1;
      pixels.data.set(colour(label - 1), to);
      pixels.data[to + 3] = faint ? 60 : edge ? 255 : selected === label - 1 ? 190 : 125;
    }
  }
  canvas.getContext("2d")?.putImageData(pixels, 0, 0);
  return canvas;
}

/** Draws a small dimmed image with a mask's layer over it. */
export function thumbnail(canvas: HTMLCanvasElement, bitmap: ImageBitmap, layer: OffscreenCanvas): void {
  const scale = 160 / Math.max(bitmap.width, bitmap.height);
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  const context = canvas.getContext("2d");
  if (context === null) return;
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  context.fillStyle = "rgb(0 0 0 / 35%)";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(layer, 0, 0, canvas.width, canvas.height);
}
