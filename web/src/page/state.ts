/** The page's state: changed by the user's actions, shown by view.ts. */

import { type MaskRecord, type Prompt, SamEdgeError } from "../runtime/index.ts";
import type { LoadedImage } from "./image-file.ts";
import type { DecodedMasks, LoadedModel } from "./protocol.ts";
import type { Config } from "./server.ts";
import type { Box, Point } from "./stage.ts";

/** The points and the box of a prompt. */
export interface Prompts {
  readonly points: readonly { readonly at: Point; readonly label: number }[];
  readonly box: Box | null;
}

/** Result of segmenting everything. */
export interface EverythingResult {
  readonly records: MaskRecord[];
  /** (H, W): 0 for background, else 1 + index of the record. */
  readonly labels: Uint16Array;
  readonly milliseconds: number;
  /** Index of the record chosen for download. */
  readonly selected: number | null;
}

interface State {
  config: Config | null;
  /** Null while it loads, and if it could not be loaded. */
  model: LoadedModel | null;
  image: LoadedImage | null;
  isEncoded: boolean;
  /** For undo; the last are the current prompts. */
  history: Prompts[];
  /** Candidates for the current prompts. */
  decoded: DecodedMasks | null;
  /** Index of the chosen candidate. */
  chosen: number;
  /** Whether `layer` is a preview of the mask under the pointer. */
  isPreview: boolean;
  /** Null unless everything is segmented; then clicks select one of its masks. */
  everything: EverythingResult | null;
  /** Keyboard cursor. */
  cursor: Point | null;
  /** First corner of a box that is set by keyboard. */
  boxCorner: Point | null;
  /** Pixel under the pointer or the keyboard cursor. */
  hovered: Point | null;
  /** Masks, drawn over the image. */
  layer: OffscreenCanvas | null;
  /** Whether a left click adds a background point. */
  clickRemoves: boolean;
}

export const NO_PROMPTS: Prompts = { points: [], box: null };

export const state: State = {
  config: null,
  model: null,
  image: null,
  isEncoded: false,
  history: [NO_PROMPTS],
  decoded: null,
  chosen: 0,
  isPreview: false,
  everything: null,
  cursor: null,
  boxCorner: null,
  hovered: null,
  layer: null,
  clickRemoves: false,
};

/** Returns the server's configuration. Throws a `SamEdgeError` if it has not been read yet. */
export function requireConfig(): Config {
  if (state.config === null)
    throw new SamEdgeError("network", "the server's configuration has not been read; try again in a moment");
  return state.config;
}

export function currentPrompts(): Prompts {
  return state.history[state.history.length - 1];
}

export function isEmpty({ points, box }: Prompts): boolean {
  return points.length === 0 && box === null;
}

/** Converts prompts to the runtime's format. */
export function toPrompt({ points, box }: Prompts): Prompt {
  return {
    points: points.map(({ at }) => at),
    labels: points.map(({ label }) => label),
    ...(box === null ? {} : { box }),
  };
}
