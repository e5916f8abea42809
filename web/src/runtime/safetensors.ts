/** Embeddings as the server sends them: a safetensors file. */

import { reason, SamEdgeError } from "./errors.ts";
import type { ImageEmbedding } from "./sam.ts";
import type { Bytes } from "./source.ts";
import type { Tensor } from "./tensor.ts";

interface Entry {
  readonly dtype: string;
  readonly shape: number[];
  readonly data_offsets: [number, number];
}

/** Read what `POST embeddings` answers. Throws a `SamEdgeError`: something else. */
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
      if (end > bytes.length || end - start !== 4 * values) throw new Error(`${name} is cut off`);
      tensors[name] = { data: new Float32Array(bytes.slice(start, end).buffer), dims: shape };
    }
    if (!tensors.image_embeddings) throw new Error("it holds no image_embeddings");
    const originalSize = [Number(metadata.original_height), Number(metadata.original_width)] as const;
    if (!originalSize.every((side) => Number.isInteger(side) && side > 0))
      throw new Error("it names no size");
    return { tensors, originalSize, model: metadata.model_id };
  } catch (error) {
    throw new SamEdgeError(
      "network",
      `the server's answer is not an embedding (${reason(error)}); check that it is a sam-edge of this version`,
      error,
    );
  }
}
