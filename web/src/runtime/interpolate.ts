/** Bilinear interpolation with half-pixel centres (align_corners=False), as in PyTorch's `interpolate`. */

/** Returns the two source indices of output `i` when `before` inputs become `after`, and the second's weight. */
export function bilinearTaps(
  before: number,
  after: number,
  i: number,
): [low: number, high: number, weight: number] {
  const at = Math.max((i + 0.5) * (before / after) - 0.5, 0);
  const low = Math.min(Math.trunc(at), before - 1);
  return [low, Math.min(low + 1, before - 1), at - low];
}
