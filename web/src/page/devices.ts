/** Loads ONNX Runtime's web builds and chooses the device that decodes faster. */

import {
  type Device,
  errorMessage,
  load,
  type OrtModule,
  type Sam,
  SamEdgeError,
  type Source,
} from "../runtime/index.ts";
import type { LoadedModel, ModelOptions } from "./protocol.ts";

// After one warm-up.
const TIMED_DECODES = 3;

/**
 * Returns the number of wasm threads to use; `requested` 0 chooses automatically.
 *
 * Threads need a cross-origin isolated page. Hyper-threads do not speed decoding up.
 */
export function usableThreads(requested: number): number {
  if (!globalThis.crossOriginIsolated) return 1;
  const cores = navigator.hardwareConcurrency || 1;
  return Math.max(1, requested || (cores <= 4 ? cores : Math.min(8, Math.ceil(cores / 2))));
}

async function loadWasmBuild(threads: number): Promise<OrtModule> {
  const [ort, mjs, binary] = await Promise.all([
    import("onnxruntime-web/wasm"),
    import("onnxruntime-web/ort-wasm-simd-threaded.mjs?url"),
    import("onnxruntime-web/ort-wasm-simd-threaded.wasm?url"),
  ]);
  ort.env.wasm.numThreads = threads;
  ort.env.wasm.wasmPaths = { mjs: absoluteUrl(mjs.default), wasm: absoluteUrl(binary.default) };
  return ort;
}

async function loadWebgpuBuild(): Promise<OrtModule> {
  const [ort, mjs, binary] = await Promise.all([
    import("onnxruntime-web/webgpu"),
    import("onnxruntime-web/ort-wasm-simd-threaded.asyncify.mjs?url"),
    import("onnxruntime-web/ort-wasm-simd-threaded.asyncify.wasm?url"),
  ]);
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmPaths = { mjs: absoluteUrl(mjs.default), wasm: absoluteUrl(binary.default) };
  return ort;
}

function absoluteUrl(url: string): string {
  return new URL(url, import.meta.url).href;
}

/** Returns why WebGPU cannot or should not be used, or undefined. `force` accepts a software adapter. */
async function webgpuUnavailableReason(force: boolean): Promise<string | undefined> {
  const { gpu } = navigator as { gpu?: { requestAdapter(): Promise<GpuAdapter | null> } };
  if (gpu === undefined) return "this browser has no WebGPU";
  const adapter = await gpu.requestAdapter().catch(() => null);
  if (adapter === null) return "WebGPU finds no GPU";
  const isSoftware = adapter.info?.isFallbackAdapter ?? adapter.isFallbackAdapter;
  return isSoftware && !force ? "WebGPU runs only on a software adapter" : undefined;
}

interface GpuAdapter {
  readonly isFallbackAdapter?: boolean;
  readonly info?: { readonly isFallbackAdapter?: boolean };
}

/** Returns the median latency of a decode in milliseconds. */
async function measureDecode(sam: Sam): Promise<number> {
  const { variant, manifest } = sam;
  const tensors: Record<string, { data: Float32Array; dims: number[] }> = {};
  for (const { name, shape } of variant.encoder.outputs) {
    const dims = shape.map((side) => (typeof side === "number" ? side : 1));
    const data = Float32Array.from({ length: dims.reduce((a, b) => a * b, 1) }, (_, i) => Math.sin(i));
    tensors[name] = { data, dims };
  }
  const embedding = { tensors, originalSize: [64, 64] as const, model: manifest.model.checkpoint.sha256 };
  const times: number[] = [];
  for (let i = 0; i <= TIMED_DECODES; i++) {
    const start = performance.now();
    await sam.decode(embedding, [{ points: [[32, 32]] }]);
    times.push(performance.now() - start);
  }
  return times.slice(1).sort((a, b) => a - b)[Math.floor(TIMED_DECODES / 2)];
}

/**
 * Loads a variant on the requested device, or for "auto" on the one that decodes faster.
 *
 * Throws a `SamEdgeError` if no device can run it.
 */
export async function loadFastest(
  source: Source,
  { variant, backend, threads }: ModelOptions,
  report: (progress: string) => void,
): Promise<{ sam: Sam } & Pick<LoadedModel, "device" | "threads" | "measured" | "notes">> {
  const wasmThreads = usableThreads(threads);
  const measured: Partial<Record<Device, number>> = {};
  const notes: string[] = [];
  let chosen: { sam: Sam; device: Device } | undefined;
  for (const device of ["wasm", "webgpu"] as const) {
    if (backend !== "auto" && backend !== device) continue;
    const unavailable = device === "webgpu" ? await webgpuUnavailableReason(backend === "webgpu") : undefined;
    if (unavailable !== undefined) {
      notes.push(unavailable);
      continue;
    }
    report(`Loading the model for ${device === "webgpu" ? "WebGPU" : "WebAssembly"}…`);
    try {
      const ort = device === "webgpu" ? await loadWebgpuBuild() : await loadWasmBuild(wasmThreads);
      // With WebGPU, the tokens between the decoder's two stages would be copied from and to the GPU.
      const skipPadding = device === "wasm";
      const sam = await load(source, ort, { variant, device, encoder: false, skipPadding });
      measured[device] = await measureDecode(sam);
      if (chosen === undefined || measured[device] < (measured[chosen.device] ?? 0)) {
        await chosen?.sam.close();
        chosen = { sam, device };
      } else await sam.close();
    } catch (error) {
      // wasm is tried first: if it loaded the bundle, the error is specific to WebGPU.
      if (chosen === undefined) throw error;
      notes.push(`WebGPU cannot run this model: ${errorMessage(error)}`);
    }
  }
  if (chosen === undefined)
    throw new SamEdgeError("backend", `${notes.join("; ")}; choose another backend in the settings`);
  return { ...chosen, threads: chosen.device === "wasm" ? wasmThreads : 1, measured, notes };
}
