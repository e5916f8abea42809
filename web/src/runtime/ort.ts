/** Sessions of ONNX Runtime Web. The module is given, so that a page loads only the build it runs. */

import type * as Ort from "onnxruntime-web";
import { reason, SamEdgeError } from "./errors.ts";
import type { Bytes } from "./source.ts";
import type { Session, Tensor, Tensors } from "./tensor.ts";

export type OrtModule = Pick<typeof Ort, "InferenceSession" | "Tensor" | "env">;
export type Device = "wasm" | "webgpu";

/** Weights that a graph keeps in another file of the bundle. */
export interface ExternalData {
  readonly path: string;
  readonly data: Bytes;
}

// Creating sessions and running them at the same time is not supported, by any of ONNX Runtime's web builds.
let last: Promise<unknown> = Promise.resolve();

function inTurn<T>(work: () => Promise<T>): Promise<T> {
  const turn = last.then(work, work);
  last = turn.catch(() => undefined);
  return turn;
}

/** Load a graph on a device. Throws a `SamEdgeError`: ONNX Runtime refuses it. */
export async function openSession(
  ort: OrtModule,
  model: Bytes,
  device: Device,
  externalData: readonly ExternalData[] = [],
): Promise<Session> {
  let session: Ort.InferenceSession;
  try {
    session = await inTurn(() =>
      ort.InferenceSession.create(model, {
        executionProviders: [device],
        externalData: [...externalData],
        // Its remarks are no business of the user's.
        logSeverityLevel: 3,
      }),
    );
  } catch (error) {
    throw new SamEdgeError(
      "backend",
      `ONNX Runtime cannot load the graph on ${device}: ${reason(error)}`,
      error,
    );
  }
  return {
    async run(inputs) {
      try {
        return await inTurn(async () => {
          const feeds: Record<string, Ort.Tensor> = {};
          for (const name of session.inputNames) if (inputs[name]) feeds[name] = toOrt(ort, inputs[name]);
          return fromOrt(await session.run(feeds));
        });
      } catch (error) {
        throw new SamEdgeError("backend", `ONNX Runtime cannot run the graph: ${reason(error)}`, error);
      }
    },
    close: () => inTurn(() => session.release()),
  };
}

function toOrt(ort: OrtModule, { data, dims }: Tensor): Ort.Tensor {
  return data instanceof Uint8Array
    ? new ort.Tensor("uint8", data, dims)
    : new ort.Tensor("float32", data, dims);
}

function fromOrt(outputs: Ort.InferenceSession.OnnxValueMapType): Tensors {
  const tensors: Record<string, Tensor> = {};
  for (const [name, value] of Object.entries(outputs))
    tensors[name] = { data: value.data as Float32Array, dims: value.dims };
  return tensors;
}
