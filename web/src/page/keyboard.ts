/** The page's keys; index.html lists them. */

import { moveCursor } from "./cursor.ts";
import { element } from "./dom.ts";
import { selectMask, toggleEverything } from "./everything-mode.ts";
import { addPoint, chooseCandidate, preview, reset, setBox, undo } from "./prompting.ts";
import { boxBetween, type Point } from "./stage.ts";
import { state } from "./state.ts";
import { show } from "./view.ts";

const KEYS: Record<string, (event: KeyboardEvent) => void> = {
  ArrowLeft: (event) => move(-1, 0, event.shiftKey),
  ArrowRight: (event) => move(1, 0, event.shiftKey),
  ArrowUp: (event) => move(0, -1, event.shiftKey),
  ArrowDown: (event) => move(0, 1, event.shiftKey),
  Enter: () => withCursor((at) => (state.everything ? selectMask(at) : addPoint(at, 1))),
  Delete: () => withCursor((at) => !state.everything && addPoint(at, 0)),
  Backspace: () => withCursor((at) => !state.everything && addPoint(at, 0)),
  Escape: reset,
  b: () => withCursor((at) => !state.everything && setBoxCorner(at)),
  e: () => void toggleEverything(),
  z: undo,
  o: () => element("file").click(),
};

export function listenForKeys(): void {
  document.addEventListener("keydown", (event) => {
    const target = event.target as HTMLElement;
    const isControl = target.closest("button, select, input, a, [popover]") !== null;
    if (isControl || event.altKey || ((event.ctrlKey || event.metaKey) && event.key !== "z")) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const act = /^[1-9]$/.test(key) ? () => chooseCandidate(Number(key) - 1) : KEYS[key];
    if (act === undefined || (state.image === null && key !== "o")) return;
    event.preventDefault();
    act(event);
  });
}

function move(dx: number, dy: number, far: boolean): void {
  if (state.image === null) return;
  state.cursor = moveCursor(state.cursor, state.image, [dx, dy], far);
  show();
  preview(state.cursor);
}

/** Calls `act` with the cursor's position, which is shown first if it was not. */
function withCursor(act: (at: Point) => void): void {
  if (state.cursor === null) move(0, 0, false);
  if (state.cursor !== null) act(state.cursor);
}

/** Sets the first corner of a box, or the opposite one and with it the box. */
function setBoxCorner(at: Point): void {
  const corner = state.boxCorner;
  state.boxCorner = corner === null ? at : null;
  if (corner !== null) setBox(boxBetween(corner, at));
  show();
}
