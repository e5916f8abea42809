/** Reads image files; files that are too large are rejected before they are decoded. */

import { SamEdgeError } from "../runtime/index.ts";

/** A decoded image file. */
export interface LoadedImage {
  readonly name: string;
  readonly bitmap: ImageBitmap;
  readonly width: number;
  readonly height: number;
  /** The original file, to send to a server that encodes. */
  readonly blob: Blob;
}

/** Largest file and image that the server accepts; fields as in config.json. */
export interface Limits {
  readonly max_body_bytes: number;
  readonly max_image_pixels: number;
}

/** Decodes an image file. Throws a `SamEdgeError` if it is empty, not an image, or too large. */
export async function readImage(blob: Blob, name: string, limits: Limits): Promise<LoadedImage> {
  if (blob.size === 0) throw new SamEdgeError("image", `${name} is empty (0 bytes); choose another file`);
  const head = new Uint8Array(await blob.slice(0, 1 << 18).arrayBuffer());
  checkPixels(imageSize(head), name, limits);
  let bitmap: ImageBitmap;
  try {
    // Without colour conversion, rotated according to EXIF: the same pixels as in the Python runtime.
    bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none" });
  } catch (error) {
    throw new SamEdgeError(
      "image",
      `${name} cannot be read as a picture; expected JPEG, PNG, WebP or another image format`,
      error,
    );
  }
  checkPixels([bitmap.width, bitmap.height], name, limits);
  return { name, bitmap, width: bitmap.width, height: bitmap.height, blob };
}

function checkPixels(size: [number, number] | null, name: string, { max_image_pixels }: Limits): void {
  if (size === null || size[0] * size[1] <= max_image_pixels) return;
  const megapixels = (pixels: number) => `${Math.round(pixels / 1e5) / 10} megapixels`;
  throw new SamEdgeError(
    "image",
    `${name} is too large: ${size[0]} × ${size[1]} are ${megapixels(size[0] * size[1])}, and the limit is ` +
      `${megapixels(max_image_pixels)}; make it smaller first`,
  );
}

/** Parses [width, height] from the header of a PNG, JPEG, WebP, GIF or BMP file; null for other files. */
export function imageSize(head: Uint8Array): [number, number] | null {
  const view = new DataView(head.buffer, head.byteOffset, head.byteLength);
  const ascii = (at: number, length: number) => String.fromCharCode(...head.subarray(at, at + length));
  try {
    if (ascii(1, 3) === "PNG") return [view.getUint32(16), view.getUint32(20)];
    if (ascii(0, 3) === "GIF") return [view.getUint16(6, true), view.getUint16(8, true)];
    if (ascii(0, 2) === "BM") return [view.getInt32(18, true), Math.abs(view.getInt32(22, true))];
    if (ascii(0, 4) === "RIFF" && ascii(8, 4) === "WEBP") return webpSize(view, ascii(12, 4));
    if (view.getUint16(0) === 0xffd8) return jpegSize(view);
  } catch {
    // The header is truncated.
  }
  return null;
}

function webpSize(view: DataView, kind: string): [number, number] | null {
  const uint24 = (at: number) => view.getUint16(at, true) | (view.getUint8(at + 2) << 16);
  if (kind === "VP8X") return [uint24(24) + 1, uint24(27) + 1];
  if (kind === "VP8 ") return [view.getUint16(26, true) & 0x3fff, view.getUint16(28, true) & 0x3fff];
  if (kind !== "VP8L") return null;
  const bits = view.getUint32(21, true);
  return [(bits & 0x3fff) + 1, ((bits >> 14) & 0x3fff) + 1];
}

function jpegSize(view: DataView): [number, number] | null {
  for (let at = 2; ; ) {
    if (view.getUint8(at) !== 0xff) return null;
    const marker = view.getUint8(at + 1);
    // SOF markers; C4 (DHT), C8 (JPG) and CC (DAC) are not frame headers.
    if (marker >= 0xc0 && marker <= 0xcf && marker !== 0xc4 && marker !== 0xc8 && marker !== 0xcc)
      return [view.getUint16(at + 7), view.getUint16(at + 5)];
    at += marker === 0xff ? 1 : 2 + view.getUint16(at + 2);
  }
}

/** Returns the image's pixels, RGBA. Throws a `SamEdgeError` if they do not fit into the browser's memory. */
export function pixelsOf({ bitmap, width, height, name }: LoadedImage): ImageData {
  try {
    const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
    if (context === null) throw new Error("no canvas");
    context.drawImage(bitmap, 0, 0);
    return context.getImageData(0, 0, width, height);
  } catch (error) {
    throw new SamEdgeError(
      "image",
      `${name} of ${width} × ${height} pixels does not fit into this browser's memory; make it smaller first`,
      error,
    );
  }
}
