/** Sessions of ONNX Runtime Web. Callers pass the module, so that a page loads only the build that it runs. */

import type * as Ort from "onnxruntime-web";
import { errorMessage, SamEdgeError } from "./errors.ts";
import type { Bytes } from "./source.ts";
import type { Session, Tensor, Tensors } from "./tensor.ts";

/** The parts of the `onnxruntime-web` module that the runtime uses. */
export type OrtModule = Pick<typeof Ort, "InferenceSession" | "Tensor" | "env">;
/** Execution provider of ONNX Runtime Web. */
export type Device = "wasm" | "webgpu";

/** A file of external data: weights that a graph references by `path`. */
export interface ExternalData {
  readonly path: string;
  readonly data: Bytes;
}

// ONNX Runtime's web builds do not support creating and running sessions concurrently.
let lastRun: Promise<unknown> = Promise.resolve();

/** Runs `work` after all earlier calls have settled. */
function runExclusive<T>(work: () => Promise<T>): Promise<T> {
  const turn = lastRun.then(work, work);
  lastRun = turn.catch(() => undefined);
  return turn;
}

/** Creates a session for a graph on a device. Throws a `SamEdgeError` if ONNX Runtime cannot load it. */
export async function openSession(
  ort: OrtModule,
  model: Bytes,
  device: Device,
  externalData: readonly ExternalData[] = [],
): Promise<Session> {
  let session: Ort.InferenceSession;
  try {
    session = await runExclusive(() =>
      ort.InferenceSession.create(model, {
        executionProviders: [device],
        externalData: [...externalData],
        logSeverityLevel: 3, // errors only
      }),
    );
  } catch (error) {
    throw new SamEdgeError(
      "backend",
      `ONNX Runtime cannot load the graph on ${device}: ${errorMessage(error)}`,
      error,
    );
  }
  return {
    async run(inputs) {
      try {
        return await runExclusive(async () => {
          const feeds: Record<string, Ort.Tensor> = {};
          for (const name of session.inputNames) if (inputs[name]) feeds[name] = toOrt(ort, inputs[name]);
          return fromOrt(await session.run(feeds));
        });
      } catch (error) {
        throw new SamEdgeError("backend", `ONNX Runtime cannot run the graph: ${errorMessage(error)}`, error);
      }
    },
    close: () => runExclusive(() => session.release()),
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
