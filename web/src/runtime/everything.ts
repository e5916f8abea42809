/** Automatic mask generation from a grid of points, as in sam_edge/tasks/everything.py. */

import { maskWindow, stabilityScore } from "./postprocess.ts";
import * as rle from "./rle.ts";
import type { ImageEmbedding, Sam } from "./sam.ts";

type Box = readonly [x0: number, y0: number, x1: number, y1: number];

/** Options of `everything`. */
export interface EverythingOptions {
  /** Points along one side of the grid. */
  readonly pointsPerSide?: number;
  /** Masks whose score is not above this are dropped; 0 keeps all. Default: the manifest's value, or 0.88. */
  readonly predIouThresh?: number;
  /** Masks with a lower stability score are dropped; 0 keeps all. Default: the manifest's value, or 0.95. */
  readonly stabilityScoreThresh?: number;
  /** Offset, in logits, by which the mask threshold is raised and lowered to compute the stability score. */
  readonly stabilityScoreOffset?: number;
  /** IoU of two boxes above which only the mask with the higher score is kept. */
  readonly boxNmsThresh?: number;
  /** Called after each batch with the number of processed points and of all points; `false` stops early. */
  readonly progress?: (done: number, total: number) => boolean | undefined | Promise<boolean | undefined>;
}

/** A mask found by `everything`, with the keys of SAM's automatic mask generator. */
export interface MaskRecord {
  readonly segmentation: rle.Rle;
  /** x, y, width, height. */
  readonly bbox: [number, number, number, number];
  readonly area: number;
  readonly predicted_iou: number;
  readonly stability_score: number;
  readonly point_coords: [[number, number]];
}

// Points decoded between two calls of `progress`.
const POINTS_PER_BATCH = 64;

/** Returns `perSide`² points (x, y) evenly spaced in [0, 1] x [0, 1], row by row. */
export function pointGrid(perSide: number): [number, number][] {
  const side = Array.from({ length: perSide }, (_, i) => (2 * i + 1) / (2 * perSide));
  return side.flatMap((y) => side.map((x): [number, number] => [x, y]));
}

/** Non-maximum suppression, as in torchvision: returns the indices of kept boxes, best score first. */
export function nms(boxes: readonly Box[], scores: readonly number[], iouThreshold: number): number[] {
  const order = scores.map((_, i) => i).sort((a, b) => scores[b] - scores[a]);
  const kept: number[] = [];
  for (const i of order) if (kept.every((j) => !overlaps(boxes[j], boxes[i], iouThreshold))) kept.push(i);
  return kept;
}

/** Whether the IoU of two boxes is above a threshold. Without a division, so that empty boxes never overlap. */
function overlaps(a: Box, b: Box, iouThreshold: number): boolean {
  const width = Math.max(Math.min(a[2], b[2]) - Math.max(a[0], b[0]), 0);
  const height = Math.max(Math.min(a[3], b[3]) - Math.max(a[1], b[1]), 0);
  const shared = width * height;
  const areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]);
  return shared > iouThreshold * (areas - shared);
}

/**
 * Returns the masks of all objects in an encoded image, best score first.
 *
 * Prompts the decoder with a grid of points and filters the masks by score, stability and box NMS.
 */
export async function everything(
  sam: Sam,
  embedding: ImageEmbedding,
  options: EverythingOptions = {},
): Promise<MaskRecord[]> {
  const {
    pointsPerSide = 32,
    predIouThresh = sam.manifest.mask.pred_iou_thresh ?? 0.88,
    stabilityScoreThresh = sam.manifest.mask.stability_score_thresh ?? 0.95,
    stabilityScoreOffset = 1,
    boxNmsThresh = 0.7,
    progress = () => undefined,
  } = options;
  const [height, width] = embedding.originalSize;
  const up = sam.upscaling(embedding.originalSize);
  const points = pointGrid(pointsPerSide).map(([x, y]): [number, number] => [x * width, y * height]);
  const found: MaskRecord[] = [];
  const boxes: Box[] = [];
  for (let start = 0; start < points.length; start += POINTS_PER_BATCH) {
    const batch = points.slice(start, start + POINTS_PER_BATCH);
    const prompts = batch.map((point) => ({ points: [point] }));
    for await (const { prompt, score, lowRes } of sam.candidates(embedding, prompts, predIouThresh)) {
      const window = maskWindow(up, lowRes, sam.manifest.mask.threshold, stabilityScoreOffset);
      const stability = stabilityScore(window);
      if (stabilityScoreThresh > 0 && !(stability >= stabilityScoreThresh)) continue;
      const [x, y, w, h] = rle.bbox(window.mask, [window.height, window.width]);
      const [x0, y0] = w > 0 ? [window.left + x, window.top + y] : [0, 0];
      const box: Box = [x0, y0, x0 + Math.max(w - 1, 0), y0 + Math.max(h - 1, 0)];
      const corner = [window.top, window.left] as const;
      const segmentation = rle.encode(window.mask, [window.height, window.width], corner, [height, width]);
      boxes.push(box);
      found.push({
        segmentation,
        bbox: [x0, y0, w, h],
        area: rle.area(segmentation),
        predicted_iou: score,
        stability_score: stability,
        point_coords: [batch[prompt]],
      });
    }
    if ((await progress(start + batch.length, points.length)) === false) break;
  }
  const scores = found.map((record) => record.predicted_iou);
  return nms(boxes, scores, boxNmsThresh).map((i) => found[i]);
}
