/** Reads image embeddings that `sam-edge serve` sends as safetensors. */

import { errorMessage, SamEdgeError } from "./errors.ts";
import type { ImageEmbedding } from "./sam.ts";
import type { Bytes } from "./source.ts";
import type { Tensor } from "./tensor.ts";

/** A tensor's entry in the safetensors header. */
interface Entry {
  readonly dtype: string;
  readonly shape: number[];
  readonly data_offsets: [number, number];
}

/** Parses the response to `POST embeddings`. Throws a `SamEdgeError` if it is not a valid embedding. */
export function readEmbedding(bytes: Bytes): ImageEmbedding {
  try {
    const length = Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true));
    const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + length)));
    const { __metadata__: metadata, ...entries } = header as Record<string, Entry> & {
      __metadata__: Record<string, string>;
    };
    const tensors: Record<string, Tensor> = {};
    for (const [name, { dtype, shape, data_offsets }] of Object.entries(entries as Record<string, Entry>)) {
      if (dtype !== "F32") throw new Error(`${name} is ${dtype}, not F32`);
      const [start, end] = data_offsets.map((offset) => 8 + length + offset);
      const values = shape.reduce((product, side) => product * side, 1);
      if (end > bytes.length || end - start !== 4 * values) throw new Error(`${name} is truncated`);
      tensors[name] = { data: new Float32Array(bytes.slice(start, end).buffer), dims: shape };
    }
    if (!tensors.image_embeddings) throw new Error("it has no image_embeddings");
    const originalSize = [Number(metadata.original_height), Number(metadata.original_width)] as const;
    if (!originalSize.every((side) => Number.isInteger(side) && side > 0))
      throw new Error("its metadata has no valid image size");
    return { tensors, originalSize, model: metadata.model_id };
  } catch (error) {
    throw new SamEdgeError(
      "network",
      `the server's answer is not an embedding (${errorMessage(error)}); check that it runs this version of sam-edge`,
      error,
    );
  }
}
