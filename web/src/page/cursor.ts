import type { Point } from "./stage.ts";

/**
 * Moves the keyboard cursor by steps of 1 % of the image's longer side, 6 % if `far`; it stays inside the image.
 *
 * Without a cursor, it starts in the middle.
 */
export function moveCursor(
  cursor: Point | null,
  { width, height }: { readonly width: number; readonly height: number },
  [dx, dy]: readonly [number, number],
  far: boolean,
): Point {
  const step = Math.max(1, Math.round((Math.max(width, height) / 100) * (far ? 6 : 1)));
  const [x, y] = cursor ?? [Math.floor(width / 2), Math.floor(height / 2)];
  const clamp = (position: number, side: number) => Math.min(Math.max(position, 0), side - 1);
  return [clamp(x + dx * step, width), clamp(y + dy * step, height)];
}
