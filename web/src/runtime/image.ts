import { SamEdgeError } from "./errors.ts";

/** [height, width] in pixels. */
export type Size = readonly [height: number, width: number];

/**
 * An image, such as an `ImageData`: (H, W, 3) RGB or (H, W, 4) RGBA, row-major, values from 0 to 255. Alpha is
 * ignored.
 */
export interface Image {
  readonly data: Uint8Array | Uint8ClampedArray;
  readonly width: number;
  readonly height: number;
}

/**
 * Validates an image and returns its number of channels, 3 or 4.
 *
 * Throws a `SamEdgeError` if `data` does not match `width` and `height`.
 */
export function channelCount(image: Image): 3 | 4 {
  const { data, width, height } = image;
  const pixels = width * height;
  const channels = data.length / pixels;
  if (!Number.isInteger(width) || !Number.isInteger(height) || width < 1 || height < 1)
    throw new SamEdgeError("image", `the image is ${width} by ${height} pixels; expected 1 by 1 or more`);
  if (channels !== 3 && channels !== 4)
    throw new SamEdgeError(
      "image",
      `the image of ${width} by ${height} pixels has ${data.length} values; expected ${3 * pixels} of RGB or ` +
        `${4 * pixels} of RGBA`,
    );
  return channels;
}
