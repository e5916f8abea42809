import { SamEdgeError } from "./errors.ts";

/** An array with its shape, row-major. */
export interface Tensor {
  readonly data: Float32Array | Uint8Array;
  readonly dims: readonly number[];
}

export type Tensors = Readonly<Record<string, Tensor>>;

/** A graph ready to run; only it holds state. */
export interface Session {
  run(inputs: Tensors): Promise<Tensors>;
  close(): Promise<void>;
}

/**
 * The floats of an output.
 *
 * Throws a `SamEdgeError` unless the graph made it in this shape; a negative side stands for any.
 */
export function floats(outputs: Tensors, name: string, ...shape: number[]): Float32Array {
  const made = outputs[name];
  const fits =
    made?.data instanceof Float32Array &&
    (shape.length === 0 ||
      (made.dims.length === shape.length && shape.every((side, i) => side < 0 || side === made.dims[i])));
  if (!fits) {
    const there = Object.entries(outputs).map(([key, { dims }]) => `${key} (${dims.join(", ")})`);
    throw new SamEdgeError(
      "backend",
      `the graph makes ${there.join(", ") || "nothing"}; the manifest says ${name} (${shape.join(", ")}); ` +
        "export it again",
    );
  }
  return made.data as Float32Array;
}
