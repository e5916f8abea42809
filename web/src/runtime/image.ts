import { SamEdgeError } from "./errors.ts";

/** [height, width] in pixels. */
export type Size = readonly [height: number, width: number];

/** Pixels row by row, RGB or RGBA (alpha is not looked at), from 0 to 255: an `ImageData` is one. */
export interface Image {
  readonly data: Uint8Array | Uint8ClampedArray;
  readonly width: number;
  readonly height: number;
}

/**
 * The number of values a pixel has, 3 or 4.
 *
 * Throws a `SamEdgeError`: not such an image.
 */
export function channelsOf(image: Image): 3 | 4 {
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
