/** The list of candidate masks, and the text about the chosen one. */

import { duration, element } from "./dom.ts";
import { maskLayer, thumbnail } from "./layers.ts";
import { type EverythingResult, state } from "./state.ts";

// The part of the state that the list shows now; each update replaces the buttons, and with them the focus.
let shown: unknown[] = [];

/** Updates the list if the masks or the choice among them changed. */
export function showCandidates(): void {
  const { everything, decoded, image, chosen } = state;
  const current = [everything ?? decoded, chosen];
  if (current.every((value, i) => value === shown[i])) return;
  shown = current;
  const list = element("candidates");
  let text = "";
  if (everything !== null) {
    const { records, milliseconds } = everything;
    list.replaceChildren(placeholder(`${records.length} masks in ${duration(milliseconds)}`));
    text = describeSelected(everything);
  } else if (decoded !== null && image !== null) {
    const { scores, masks, size } = decoded;
    const layers = masks.map((mask) => mask && maskLayer(mask, size));
    list.replaceChildren(
      ...scores.map((score, i) => candidateButton(i, score, i === chosen, image.bitmap, layers[i])),
    );
    text = describeCandidate(chosen, scores, masks[chosen]);
  } else {
    list.replaceChildren(placeholder("The model's candidate masks and their scores appear here."));
  }
  element("result").textContent = text;
}

/** Returns a button whose `data-index` is the candidate's index. */
function candidateButton(
  index: number,
  score: number,
  isChosen: boolean,
  bitmap: ImageBitmap,
  layer: OffscreenCanvas | null,
): HTMLButtonElement {
  const button = document.createElement("button");
  button.type = "button";
  button.dataset.index = String(index);
  button.setAttribute("aria-pressed", String(isChosen));
  button.setAttribute("aria-label", `Mask ${index + 1}, score ${score.toFixed(2)}`);
  button.title = `Mask ${index + 1} (key ${index + 1})`;
  const canvas = document.createElement("canvas");
  if (layer !== null) thumbnail(canvas, bitmap, layer);
  const label = document.createElement("span");
  label.className = "score";
  const bar = document.createElement("i");
  bar.style.setProperty("--share", `${Math.round(Math.min(Math.max(score, 0), 1) * 100)}%`);
  label.append(bar, score.toFixed(2));
  button.append(canvas, label);
  return button;
}

function placeholder(text: string): HTMLElement {
  const paragraph = document.createElement("p");
  paragraph.className = "none";
  paragraph.textContent = text;
  return paragraph;
}

/** Describes the chosen candidate, for example "Mask 2 of 3: score 0.91, 25 % of the picture." */
export function describeCandidate(index: number, scores: number[], mask: Uint8Array | null): string {
  const share = mask ? mask.reduce((sum, pixel) => sum + pixel, 0) / mask.length : 0;
  return (
    `Mask ${index + 1} of ${scores.length}: score ${scores[index].toFixed(2)}, ` +
    `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} % of the picture.`
  );
}

/** Describes the selected mask; "" if there are masks and none is selected. */
export function describeSelected({ records, selected }: EverythingResult): string {
  if (records.length === 0) return "None passed the model's thresholds; try more points in the settings.";
  if (selected === null) return "";
  const { predicted_iou, area } = records[selected];
  return `Mask ${selected + 1}: score ${predicted_iou.toFixed(2)}, ${area} pixels.`;
}
