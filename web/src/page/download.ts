/** Downloads the chosen mask, or all masks of everything. */

import { errorMessage, rle, type Size } from "../runtime/index.ts";
import { showError } from "./dom.ts";
import { type CocoMask, coco, cutOutPng, maskPng, save } from "./mask-files.ts";
import { currentPrompts, state, toPrompt } from "./state.ts";
import { worker } from "./worker-client.ts";

interface FullMask {
  /** (H, W) at the image's original size. */
  readonly mask: Uint8Array;
  readonly size: Size;
  readonly score: number;
}

/** Downloads the chosen mask as a PNG, the image inside it, or masks as COCO JSON. */
export async function download(kind: "mask" | "cut-out" | "coco"): Promise<void> {
  const { image, everything } = state;
  if (image === null) return;
  const stem = image.name.replace(/\.[^.]*$/, "");
  try {
    if (kind === "coco" && everything)
      return save(coco(image, everything.records), `${stem}-everything.json`);
    const full = await chosenMask();
    if (full === null) return;
    const { mask, size } = full;
    if (kind === "mask") save(await maskPng(mask, size), `${stem}-mask.png`);
    else if (kind === "coco") save(coco(image, [cocoMask(full)]), `${stem}-mask.json`);
    else if (mask.includes(1)) save(await cutOutPng(image, mask, size), `${stem}-cut-out.png`);
    else throw new Error("the mask is empty: there is nothing to cut out; choose another mask");
  } catch (error) {
    showError(errorMessage(error));
  }
}

/** Returns the chosen mask; null if there is none. */
async function chosenMask(): Promise<FullMask | null> {
  const { image, everything, decoded, chosen } = state;
  if (image === null) return null;
  const size: Size = [image.height, image.width];
  if (everything) {
    const record = everything.records[everything.selected ?? -1];
    return record ? { mask: rle.decode(record.segmentation), size, score: record.predicted_iou } : null;
  }
  if (decoded === null) return null;
  const { masks, scores } = await worker.call("decode", [toPrompt(currentPrompts()), null, chosen]);
  const mask = masks[chosen];
  return mask && { mask, size, score: scores[chosen] };
}

function cocoMask({ mask, size, score }: FullMask): CocoMask {
  const segmentation = rle.encode(mask, size);
  const points = currentPrompts().points.map(({ at }) => at);
  return {
    segmentation,
    bbox: rle.bbox(mask, size),
    area: rle.area(segmentation),
    predicted_iou: score,
    ...(points.length ? { point_coords: points } : {}),
  };
}
