/** Shows the state: the canvas, the enabled buttons and the candidates. */

import { showCandidates } from "./candidates.ts";
import { element } from "./dom.ts";
import { boxBetween, Stage } from "./stage.ts";
import { currentPrompts, state } from "./state.ts";

export const stage = new Stage(element<HTMLCanvasElement>("view"));

/** Updates the page after a change of `state`. */
export function show(): void {
  showStage();
  showTools();
  showCandidates();
}

/** Removes all masks. */
export function clearMasks(): void {
  state.decoded = state.everything = state.layer = null;
  state.isPreview = false;
  show();
}

function showStage(): void {
  const { image, everything, layer, boxCorner, cursor } = state;
  if (image === null) return;
  const { points, box } = currentPrompts();
  stage.show({
    bitmap: image.bitmap,
    points: everything ? [] : points,
    box: everything ? null : (box ?? (boxCorner && cursor && boxBetween(boxCorner, cursor))),
    layer,
    cursor,
  });
}

function showTools(): void {
  const { decoded, everything, isEncoded, clickRemoves } = state;
  const canUndo = state.history.length > 1 || everything !== null;
  const hasMask = decoded !== null || (everything !== null && everything.selected !== null);
  const enabled = {
    undo: canUndo,
    reset: canUndo,
    everything: isEncoded,
    "save-mask": hasMask,
    "save-cut": hasMask,
    "save-coco": decoded !== null || everything !== null,
  };
  for (const [id, isEnabled] of Object.entries(enabled)) element<HTMLButtonElement>(id).disabled = !isEnabled;
  const pressed = { everything: everything !== null, add: !clickRemoves, remove: clickRemoves };
  for (const [id, isPressed] of Object.entries(pressed))
    element(id).setAttribute("aria-pressed", String(isPressed));
  element("everything-text").textContent = everything ? "Back to clicking" : "Segment everything";
  element("hint").textContent = everything
    ? "Click on a mask to choose it for download."
    : "Click on an object, or drag a box around it.";
}
