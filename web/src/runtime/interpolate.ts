/** Bilinear interpolation with half-pixel centres (align_corners=False), as PyTorch's `interpolate`. */

/** Where output `i` of `after` lies between two of `before` inputs, and how near to the second. */
export function between(
  before: number,
  after: number,
  i: number,
): [low: number, high: number, weight: number] {
  const at = Math.max((i + 0.5) * (before / after) - 0.5, 0);
  const low = Math.min(Math.trunc(at), before - 1);
  return [low, Math.min(low + 1, before - 1), at - low];
}
