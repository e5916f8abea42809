/** Segments everything in the image, and selects one of the masks. */

import { errorMessage } from "../runtime/index.ts";
import { element, setPageState, showBusy, showError } from "./dom.ts";
import { labelLayer, labelMap } from "./layers.ts";
import type { Point } from "./stage.ts";
import { NO_PROMPTS, state } from "./state.ts";
import { clearMasks, show, stage } from "./view.ts";
import { worker } from "./worker-client.ts";

const BUSY = "Looking for everything…";

/** Segments everything, or returns to clicking if that has been done. */
export async function toggleEverything(): Promise<void> {
  if (state.everything) return leaveEverything();
  const { image } = state;
  if (image === null || !state.isEncoded) return;
  setPageState("everything-running");
  showBusy(BUSY, 0, true);
  try {
    const pointsPerSide = Number(element<HTMLSelectElement>("grid").value);
    const { records, milliseconds } = await worker.call("everything", [pointsPerSide], {
      report: (progress) => showBusy(BUSY, Number(progress), true),
    });
    if (state.image !== image) return;
    state.decoded = null;
    state.isPreview = false;
    const labels = labelMap(records, [image.height, image.width]);
    state.everything = { records, milliseconds, labels, selected: null };
    setPageState("everything");
    drawEverything();
  } catch (error) {
    if (state.image === image) setPageState("ready");
    showError(errorMessage(error));
  } finally {
    if (state.image === image) showBusy(null);
    show();
  }
}

/** Returns to clicking, without prompts. */
export function leaveEverything(): void {
  state.everything = null;
  state.history = [NO_PROMPTS];
  setPageState("ready");
  clearMasks();
}

/** Selects the mask at a pixel; if it is the selected one, or there is none, selects none. */
export function selectMask([x, y]: Point): void {
  const { everything, image } = state;
  if (everything === null || image === null) return;
  const label = everything.labels[y * image.width + x];
  const selected = label === 0 || everything.selected === label - 1 ? null : label - 1;
  state.everything = { ...everything, selected };
  drawEverything();
}

/** Draws the masks at the canvas's current size. */
export function drawEverything(): void {
  const { everything, image } = state;
  if (everything === null || image === null) return;
  state.layer = labelLayer(everything.labels, [image.height, image.width], stage.size, everything.selected);
  show();
}
