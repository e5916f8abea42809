/** Changes the prompts, and decodes them to candidate masks. */

import { errorMessage } from "../runtime/index.ts";
import { coalescingQueue } from "./coalescing-queue.ts";
import { duration, setPageState, showError, showStatus } from "./dom.ts";
import { leaveEverything } from "./everything-mode.ts";
import type { LoadedImage } from "./image-file.ts";
import { maskLayer } from "./layers.ts";
import type { Box, Point } from "./stage.ts";
import { currentPrompts, isEmpty, NO_PROMPTS, type Prompts, state, toPrompt } from "./state.ts";
import { clearMasks, show, stage } from "./view.ts";
import { worker } from "./worker-client.ts";

/** A decode to run: of the current prompts, or of a point for a preview. */
type Job =
  | { readonly kind: "prompts"; readonly image: LoadedImage; readonly prompts: Prompts }
  | { readonly kind: "preview"; readonly image: LoadedImage; readonly at: Point };

const submit = coalescingQueue<Job>(decode, (job) => job.kind === "prompts");

async function decode(job: Job): Promise<void> {
  const isCurrent = () => job.image === state.image && state.isEncoded && state.everything === null;
  if (!isCurrent() || (job.kind === "preview" && state.hovered === null)) return;
  const prompt = job.kind === "prompts" ? toPrompt(job.prompts) : { points: [job.at] };
  const which = job.kind === "prompts" ? "all" : "best";
  try {
    const decoded = await worker.call("decode", [prompt, stage.size, which]);
    if (!isCurrent()) return;
    showStatus("status-decode", "decoded", duration(decoded.milliseconds));
    if (job.kind === "prompts" && job.prompts === currentPrompts()) {
      state.decoded = decoded;
      state.chosen = decoded.best;
      setPageState("ready");
      drawChosen();
    } else if (job.kind === "preview" && state.hovered !== null && isEmpty(currentPrompts())) {
      const mask = decoded.masks[decoded.best];
      state.isPreview = true;
      state.layer = mask && maskLayer(mask, decoded.size, 0.8);
      show();
    }
  } catch (error) {
    showError(errorMessage(error));
  }
}

/** Adds a point: label 1 foreground, 0 background. */
export function addPoint(at: Point, label: number): void {
  const { points, box } = currentPrompts();
  setPrompts({ points: [...points, { at, label }], box });
}

/** Sets the box, in place of the previous one. */
export function setBox(box: Box): void {
  setPrompts({ ...currentPrompts(), box });
}

function setPrompts(prompts: Prompts): void {
  if (state.image === null || !state.isEncoded) return;
  state.history.push(prompts);
  decodePrompts();
}

/** Decodes the current prompts. */
export function decodePrompts(): void {
  const { image } = state;
  const prompts = currentPrompts();
  state.isPreview = false;
  if (isEmpty(prompts)) clearMasks();
  else if (image !== null) {
    setPageState("decoding");
    void submit({ kind: "prompts", image, prompts });
  }
  show();
}

/** Removes the newest point or box, or leaves the masks of everything. */
export function undo(): void {
  if (state.everything) leaveEverything();
  else if (state.history.length > 1) {
    state.history.pop();
    decodePrompts();
    if (isEmpty(currentPrompts())) setPageState("ready");
  }
}

/** Removes all prompts, or leaves the masks of everything. */
export function reset(): void {
  if (state.everything) {
    leaveEverything();
    return;
  }
  state.boxCorner = null;
  if (state.history.length > 1) setPageState("ready");
  state.history = [NO_PROMPTS];
  clearMasks();
}

/** Previews the mask at a pixel while there are no prompts; null removes the preview. */
export function preview(at: Point | null): void {
  const { image } = state;
  state.hovered = at;
  if (image === null || !state.isEncoded || state.everything || !isEmpty(currentPrompts())) return;
  if (at !== null) void submit({ kind: "preview", image, at });
  else if (state.isPreview) clearMasks();
}

/** Chooses one of the candidates; an index without a candidate is ignored. */
export function chooseCandidate(index: number): void {
  if (state.decoded === null || index >= state.decoded.scores.length) return;
  state.chosen = index;
  drawChosen();
}

function drawChosen(): void {
  const { decoded, chosen } = state;
  const mask = decoded?.masks[chosen];
  state.layer = decoded && mask ? maskLayer(mask, decoded.size) : null;
  show();
}
