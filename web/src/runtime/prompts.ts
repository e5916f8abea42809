/** Check prompts and bring them into the decoder's coordinates; as sam_edge/runtime/prompts.py. */

import { SamEdgeError } from "./errors.ts";
import type { Size } from "./image.ts";
import type { PromptRules } from "./manifest.ts";

/** One prompt, in pixels of the original image. */
export interface Prompt {
  /** x, y. */
  readonly points?: readonly (readonly [x: number, y: number])[];
  /** For each point 1 foreground, 0 background or -1 padding; all foreground if not given. */
  readonly labels?: readonly number[];
  readonly box?: readonly [x0: number, y0: number, x1: number, y1: number];
  /** Low-resolution logits (h, w) of an earlier prediction. */
  readonly maskInput?: Float32Array;
}

/** N prompts of K points each, as the decoder takes them. */
export interface EncodedPrompts {
  readonly n: number;
  readonly k: number;
  /** (N, K, 2) in pixels of the coordinate square. */
  readonly coords: Float32Array;
  /** (N, K). */
  readonly labels: Float32Array;
  /** (N, 1, h, w), or null. */
  readonly maskInput: Float32Array | null;
}

/** The label of what is no point at all, in decoders that take a fixed number of them. */
const ABSENT = -2;

const bad = (message: string) => new SamEdgeError("prompt", message);

/**
 * Points, then the two corners of the box (labels 2 and 3), then padding points as the rules want them.
 *
 * `prompts` have the same number of points each; `fixedPoints` is how many points a decoder with absent
 * points takes, else null. Throws a `SamEdgeError` that says which number is wrong and what was expected.
 */
export function encodePrompts(
  prompts: readonly Prompt[],
  originalSize: Size,
  resizedSize: Size,
  rules: PromptRules,
  maskSize: Size,
  fixedPoints: number | null = null,
): EncodedPrompts {
  if (prompts.length === 0) throw bad("no prompt was given; give a point, a box or a mask");
  const rows = prompts.map((prompt) => onePrompt(prompt, originalSize, rules, maskSize));
  const given = rows[0].length;
  if (rows.some((row) => row.length !== given))
    throw bad(
      "prompts have different numbers of points; expected as many in each: run the others on their own",
    );
  const withMask = prompts.filter(({ maskInput }) => maskInput !== undefined).length;
  if (withMask !== 0 && withMask !== prompts.length)
    throw bad(`${withMask} of ${prompts.length} prompts have a mask; expected all or none`);
  const hasBox = prompts[0].box !== undefined;
  if (prompts.some(({ box }) => (box !== undefined) !== hasBox))
    throw bad(
      "some prompts have a box and others have none; expected all or none: run the others on their own",
    );
  let padding = !hasBox || rules.padding_point === "always" ? 1 : 0;
  if (rules.num_points !== null) {
    if (given > rules.num_points)
      throw bad(
        `a prompt has ${given} points, box corners included; this model takes at most ${rules.num_points}`,
      );
    padding = rules.num_points - given;
  }
  const k = fixedPoints ?? given + padding;
  if (given + padding > k)
    throw bad(
      `a prompt has ${given + padding} points, box corners and padding included; this variant takes at most ` +
        `${k}; give it fewer, or load another variant`,
    );
  const { fround } = Math;
  const scale = [fround(resizedSize[1] / originalSize[1]), fround(resizedSize[0] / originalSize[0])];
  const coords = new Float32Array(rows.length * k * 2);
  const labels = new Float32Array(rows.length * k).fill(ABSENT);
  for (const [n, row] of rows.entries()) {
    for (const [i, [x, y, label]] of row.entries()) {
      coords[(n * k + i) * 2] = fround(x) * scale[0];
      coords[(n * k + i) * 2 + 1] = fround(y) * scale[1];
      labels[n * k + i] = label;
    }
    labels.fill(-1, n * k + given, n * k + given + padding);
  }
  return { n: rows.length, k, coords, labels, maskInput: withMask ? masksOf(prompts, maskSize) : null };
}

type Row = [x: number, y: number, label: number][];

function onePrompt(prompt: Prompt, [height, width]: Size, rules: PromptRules, maskSize: Size): Row {
  const { points = [], labels, box, maskInput } = prompt;
  if (labels !== undefined && labels.length !== points.length)
    throw bad(`a prompt has ${points.length} points and ${labels.length} labels; expected one label a point`);
  if (points.length === 0 && box === undefined && maskInput === undefined)
    throw bad("no prompt was given; give a point, a box or a mask");
  if (maskInput !== undefined && !rules.mask_prompt)
    throw bad("this model takes no mask as a prompt; give it points, or a box");
  if (
    maskInput !== undefined &&
    (maskInput.length !== maskSize[0] * maskSize[1] || !maskInput.every(Number.isFinite))
  )
    throw bad(
      `the mask has ${maskInput.length} values; expected ${maskSize.join(" by ")} finite low-resolution logits`,
    );
  const row: Row = points.map(([x, y], i) => {
    const label = labels?.[i] ?? 1;
    if (!Number.isFinite(x) || !Number.isFinite(y))
      throw bad(`point (${x}, ${y}) is no place; expected finite numbers`);
    if (label !== 1 && label !== 0 && label !== -1)
      throw bad(
        `point label ${label} is unknown; expected 1 for foreground, 0 for background, or -1 for padding`,
      );
    if (label !== -1 && !(x >= 0 && y >= 0 && x < width && y < height))
      throw bad(
        `point (${x}, ${y}) is outside the image; expected 0 <= x < ${width} and 0 <= y < ${height}, in ` +
          "pixels of the original image",
      );
    return [x, y, label];
  });
  if (row.length && row.every(([, , label]) => label === -1) && box === undefined && maskInput === undefined)
    throw bad("a prompt has only padding points (label -1); give it a point, a box or a mask");
  if (box !== undefined) {
    const [x0, y0, x1, y1] = box;
    const name = `box (${box.join(", ")})`;
    if (!box.every(Number.isFinite)) throw bad(`${name} is no box; expected finite numbers`);
    if (x1 <= x0 || y1 <= y0) throw bad(`${name} is empty; expected x0 < x1 and y0 < y1`);
    if (x0 < 0 || y0 < 0 || x1 > width || y1 > height)
      throw bad(
        `${name} is outside the image; expected 0 <= x <= ${width} and 0 <= y <= ${height}, in pixels of the ` +
          "original image",
      );
    row.push([x0, y0, 2], [x1, y1, 3]);
  }
  return row;
}

function masksOf(prompts: readonly Prompt[], [h, w]: Size): Float32Array {
  const masks = new Float32Array(prompts.length * h * w);
  for (const [n, { maskInput }] of prompts.entries()) masks.set(maskInput ?? [], n * h * w);
  return masks;
}
