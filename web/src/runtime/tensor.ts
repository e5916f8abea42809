import { SamEdgeError } from "./errors.ts";

/** A row-major array with its shape. */
export interface Tensor {
  readonly data: Float32Array | Uint8Array;
  readonly dims: readonly number[];
}

/** Tensors by name. */
export type Tensors = Readonly<Record<string, Tensor>>;

/** A loaded graph. */
export interface Session {
  run(inputs: Tensors): Promise<Tensors>;
  close(): Promise<void>;
}

/**
 * Returns the float32 data of a graph's output.
 *
 * Throws a `SamEdgeError` if it is absent or has another shape; a negative dimension in `shape` matches any.
 */
export function floats(outputs: Tensors, name: string, ...shape: number[]): Float32Array {
  const output = outputs[name];
  const isExpected =
    output?.data instanceof Float32Array &&
    (shape.length === 0 ||
      (output.dims.length === shape.length && shape.every((side, i) => side < 0 || side === output.dims[i])));
  if (!isExpected) {
    const actual = Object.entries(outputs).map(([key, { dims }]) => `${key} (${dims.join(", ")})`);
    throw new SamEdgeError(
      "backend",
      `the graph returns ${actual.join(", ") || "nothing"}; the manifest expects ${name} (${shape.join(", ")}); ` +
        "export the bundle again",
    );
  }
  return output.data as Float32Array;
}
