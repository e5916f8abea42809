/** Encodes masks as files, and saves them. */

import { type MaskRecord, rle, type Size } from "../runtime/index.ts";
import type { LoadedImage } from "./image-file.ts";

/** Starts the browser's download of `blob` under a file name. */
export function save(blob: Blob, name: string): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

function png(pixels: ImageData): Promise<Blob> {
  const canvas = new OffscreenCanvas(pixels.width, pixels.height);
  canvas.getContext("2d")?.putImageData(pixels, 0, 0);
  return canvas.convertToBlob({ type: "image/png" });
}

/** Encodes a mask (H, W) as a PNG: white inside, black outside. */
export function maskPng(mask: Uint8Array, [height, width]: Size): Promise<Blob> {
  const pixels = new ImageData(width, height);
  for (let i = 0, to = 0; i < mask.length; i++, to += 4) {
    pixels.data[to] = pixels.data[to + 1] = pixels.data[to + 2] = mask[i] ? 255 : 0;
    pixels.data[to + 3] = 255;
  }
  return png(pixels);
}

/** Encodes the image's pixels inside the mask as a transparent PNG, cropped to the mask's bounding box. */
export function cutOutPng(image: LoadedImage, mask: Uint8Array, size: Size): Promise<Blob> {
  const [x, y, width, height] = rle.bbox(mask, size);
  const context = new OffscreenCanvas(width, height).getContext("2d");
  if (context === null) throw new Error("no canvas");
  context.drawImage(image.bitmap, -x, -y);
  const pixels = context.getImageData(0, 0, width, height);
  for (let row = 0; row < height; row++)
    for (let column = 0; column < width; column++)
      if (!mask[(y + row) * size[1] + x + column]) pixels.data[(row * width + column) * 4 + 3] = 0;
  return png(pixels);
}

/** A mask for `coco`; a prompted mask has no stability score and any number of points. */
export interface CocoMask extends Omit<MaskRecord, "stability_score" | "point_coords"> {
  readonly stability_score?: number;
  readonly point_coords?: (readonly [number, number])[];
}

/** Encodes masks as a COCO data set of one image and one category, as `sam-edge everything` does. */
export function coco(image: LoadedImage, records: readonly CocoMask[]): Blob {
  const annotations = records.map(({ segmentation, ...record }, i) => ({
    id: i + 1,
    image_id: 1,
    category_id: 1,
    segmentation: rle.compress(segmentation),
    iscrowd: 0,
    ...record,
  }));
  const { name, width, height } = image;
  const data = {
    images: [{ id: 1, file_name: name, width, height }],
    categories: [{ id: 1, name: "object" }],
    annotations,
  };
  return new Blob([JSON.stringify(data)], { type: "application/json" });
}
