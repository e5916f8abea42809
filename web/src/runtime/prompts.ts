/** Validates prompts and converts them to the decoder's coordinates, as in sam_edge/runtime/prompts.py. */

import { SamEdgeError } from "./errors.ts";
import type { Size } from "./image.ts";
import type { PromptRules } from "./manifest.ts";

/** One prompt, in pixels of the original image. */
export interface Prompt {
  /** (x, y) of each point. */
  readonly points?: readonly (readonly [x: number, y: number])[];
  /** One label per point: 1 foreground, 0 background, -1 padding. Default: all foreground. */
  readonly labels?: readonly number[];
  /** Corners in pixels: x0 < x1, y0 < y1. */
  readonly box?: readonly [x0: number, y0: number, x1: number, y1: number];
  /** Low-resolution logits (h, w) of an earlier prediction. */
  readonly maskInput?: Float32Array;
}

/** The decoder's inputs for N prompts of K points each. */
export interface EncodedPrompts {
  readonly n: number;
  readonly k: number;
  /** (N, K, 2) x, y in pixels of the coordinate space. */
  readonly coords: Float32Array;
  /** (N, K): 1 foreground, 0 background, 2 and 3 box corners, -1 padding, -2 absent. */
  readonly labels: Float32Array;
  /** (N, 1, h, w), or null. */
  readonly maskInput: Float32Array | null;
}

// Fills prompts up to the fixed number of points of a decoder, whose attention masks these points out.
const ABSENT_LABEL = -2;

const promptError = (message: string) => new SamEdgeError("prompt", message);

/**
 * Encodes prompts as the decoder's inputs: the points, the two corners of the box (labels 2 and 3), then the
 * padding points that the model requires.
 *
 * All prompts have the same number of points. `fixedPointCount` is the number of points of a decoder that uses
 * absent points, else null. Throws a `SamEdgeError` that names the invalid value and what was expected.
 */
export function encodePrompts(
  prompts: readonly Prompt[],
  originalSize: Size,
  resizedSize: Size,
  rules: PromptRules,
  maskSize: Size,
  fixedPointCount: number | null = null,
): EncodedPrompts {
  if (prompts.length === 0) throw promptError("no prompt was given; give a point, a box or a mask");
  const rows = prompts.map((prompt) => promptRow(prompt, originalSize, rules, maskSize));
  const pointCount = rows[0].length;
  if (rows.some((row) => row.length !== pointCount))
    throw promptError(
      "prompts have different numbers of points; expected the same number in each: decode the others separately",
    );
  const maskCount = prompts.filter(({ maskInput }) => maskInput !== undefined).length;
  if (maskCount !== 0 && maskCount !== prompts.length)
    throw promptError(`${maskCount} of ${prompts.length} prompts have a mask; expected all or none`);
  const hasBox = prompts[0].box !== undefined;
  if (prompts.some(({ box }) => (box !== undefined) !== hasBox))
    throw promptError(
      "some prompts have a box and others have none; expected all or none: decode the others separately",
    );
  let padding = !hasBox || rules.padding_point === "always" ? 1 : 0;
  if (rules.num_points !== null) {
    if (pointCount > rules.num_points)
      throw promptError(
        `a prompt has ${pointCount} points, box corners included; this model takes at most ${rules.num_points}`,
      );
    padding = rules.num_points - pointCount;
  }
  const k = fixedPointCount ?? pointCount + padding;
  if (pointCount + padding > k)
    throw promptError(
      `a prompt has ${pointCount + padding} points, box corners and padding included; this variant takes at most ` +
        `${k}; give it fewer, or load another variant`,
    );
  const { fround } = Math;
  const scale = [fround(resizedSize[1] / originalSize[1]), fround(resizedSize[0] / originalSize[0])];
  const coords = new Float32Array(rows.length * k * 2);
  const labels = new Float32Array(rows.length * k).fill(ABSENT_LABEL);
  for (const [n, row] of rows.entries()) {
    for (const [i, [x, y, label]] of row.entries()) {
      coords[(n * k + i) * 2] = fround(x) * scale[0];
      coords[(n * k + i) * 2 + 1] = fround(y) * scale[1];
      labels[n * k + i] = label;
    }
    labels.fill(-1, n * k + pointCount, n * k + pointCount + padding);
  }
  return {
    n: rows.length,
    k,
    coords,
    labels,
    maskInput: maskCount > 0 ? stackMaskInputs(prompts, maskSize) : null,
  };
}

/** The points and box corners of one prompt. */
type Row = [x: number, y: number, label: number][];

function promptRow(prompt: Prompt, [height, width]: Size, rules: PromptRules, maskSize: Size): Row {
  const { points = [], labels, box, maskInput } = prompt;
  if (labels !== undefined && labels.length !== points.length)
    throw promptError(
      `a prompt has ${points.length} points and ${labels.length} labels; expected one label a point`,
    );
  if (points.length === 0 && box === undefined && maskInput === undefined)
    throw promptError("no prompt was given; give a point, a box or a mask");
  if (maskInput !== undefined && !rules.mask_prompt)
    throw promptError("this model takes no mask as a prompt; give it points, or a box");
  if (
    maskInput !== undefined &&
    (maskInput.length !== maskSize[0] * maskSize[1] || !maskInput.every(Number.isFinite))
  )
    throw promptError(
      `the mask has ${maskInput.length} values; expected ${maskSize.join(" by ")} finite low-resolution logits`,
    );
  const row: Row = points.map(([x, y], i) => {
    const label = labels?.[i] ?? 1;
    if (!Number.isFinite(x) || !Number.isFinite(y))
      throw promptError(`point (${x}, ${y}) is not finite; expected finite numbers`);
    if (label !== 1 && label !== 0 && label !== -1)
      throw promptError(
        `point label ${label} is unknown; expected 1 for foreground, 0 for background, or -1 for padding`,
      );
    if (label !== -1 && !(x >= 0 && y >= 0 && x < width && y < height))
      throw promptError(
        `point (${x}, ${y}) is outside the image; expected 0 <= x < ${width} and 0 <= y < ${height}, in ` +
          "pixels of the original image",
      );
    return [x, y, label];
  });
  if (row.length && row.every(([, , label]) => label === -1) && box === undefined && maskInput === undefined)
    throw promptError("a prompt has only padding points (label -1); give it a point, a box or a mask");
  if (box !== undefined) {
    const [x0, y0, x1, y1] = box;
    const name = `box (${box.join(", ")})`;
    if (!box.every(Number.isFinite)) throw promptError(`${name} is not finite; expected finite numbers`);
    if (x1 <= x0 || y1 <= y0) throw promptError(`${name} is empty; expected x0 < x1 and y0 < y1`);
    if (x0 < 0 || y0 < 0 || x1 > width || y1 > height)
      throw promptError(
        `${name} is outside the image; expected 0 <= x <= ${width} and 0 <= y <= ${height}, in pixels of the ` +
          "original image",
      );
    row.push([x0, y0, 2], [x1, y1, 3]);
  }
  return row;
}

function stackMaskInputs(prompts: readonly Prompt[], [h, w]: Size): Float32Array {
  const masks = new Float32Array(prompts.length * h * w);
  for (const [n, { maskInput }] of prompts.entries()) masks.set(maskInput ?? [], n * h * w);
  return masks;
}
