/** ONNX Runtime's builds, and which device decodes faster here. */

import {
  type Device,
  load,
  type OrtModule,
  reason,
  type Sam,
  SamEdgeError,
  type Source,
} from "../runtime/index.ts";
import type { Started, StartOptions } from "./protocol.ts";

// Timed decodes of each device, after one to warm up.
const DECODES = 3;

/** As many threads as help: wasm threads need a page that is isolated, and hyper-threads add nothing. */
export function usableThreads(asked: number): number {
  if (!globalThis.crossOriginIsolated) return 1;
  const cores = navigator.hardwareConcurrency || 1;
  return Math.max(1, asked || (cores <= 4 ? cores : Math.min(8, Math.ceil(cores / 2))));
}

async function wasm(threads: number): Promise<OrtModule> {
  const [ort, mjs, binary] = await Promise.all([
    import("onnxruntime-web/wasm"),
    import("onnxruntime-web/ort-wasm-simd-threaded.mjs?url"),
    import("onnxruntime-web/ort-wasm-simd-threaded.wasm?url"),
  ]);
  ort.env.wasm.numThreads = threads;
  ort.env.wasm.wasmPaths = { mjs: absolute(mjs.default), wasm: absolute(binary.default) };
  return ort;
}

async function webgpu(): Promise<OrtModule> {
  const [ort, mjs, binary] = await Promise.all([
    import("onnxruntime-web/webgpu"),
    import("onnxruntime-web/ort-wasm-simd-threaded.asyncify.mjs?url"),
    import("onnxruntime-web/ort-wasm-simd-threaded.asyncify.wasm?url"),
  ]);
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmPaths = { mjs: absolute(mjs.default), wasm: absolute(binary.default) };
  return ort;
}

function absolute(url: string): string {
  return new URL(url, import.meta.url).href;
}

/** Why WebGPU cannot be used here, or is not worth a try; undefined if it is. */
async function noWebgpu(force: boolean): Promise<string | undefined> {
  const { gpu } = navigator as { gpu?: { requestAdapter(): Promise<GpuAdapter | null> } };
  if (gpu === undefined) return "this browser has no WebGPU";
  const adapter = await gpu.requestAdapter().catch(() => null);
  if (adapter === null) return "WebGPU finds no graphics processor";
  const fallback = adapter.info?.isFallbackAdapter ?? adapter.isFallbackAdapter;
  return fallback && !force ? "WebGPU is only simulated here" : undefined;
}

interface GpuAdapter {
  readonly isFallbackAdapter?: boolean;
  readonly info?: { readonly isFallbackAdapter?: boolean };
}

/** Median milliseconds of a decode. */
async function measure(sam: Sam): Promise<number> {
  const { variant, manifest } = sam;
  const tensors: Record<string, { data: Float32Array; dims: number[] }> = {};
  for (const { name, shape } of variant.encoder.outputs) {
    const dims = shape.map((side) => (typeof side === "number" ? side : 1));
    const data = Float32Array.from({ length: dims.reduce((a, b) => a * b, 1) }, (_, i) => Math.sin(i));
    tensors[name] = { data, dims };
  }
  const embedding = { tensors, originalSize: [64, 64] as const, model: manifest.model.checkpoint.sha256 };
  const times: number[] = [];
  for (let i = 0; i <= DECODES; i++) {
    const start = performance.now();
    await sam.decode(embedding, [{ points: [[32, 32]] }]);
    times.push(performance.now() - start);
  }
  return times.slice(1).sort((a, b) => a - b)[Math.floor(DECODES / 2)];
}

/** Load a variant on the device asked for, or on the faster one. Throws a `SamEdgeError`. */
export async function loadFastest(
  source: Source,
  { variant, backend, threads }: StartOptions,
  report: (what: string) => void,
): Promise<{ sam: Sam } & Pick<Started, "device" | "threads" | "measured" | "notes">> {
  const usable = usableThreads(threads);
  const measured: Partial<Record<Device, number>> = {};
  const notes: string[] = [];
  let chosen: { sam: Sam; device: Device } | undefined;
  for (const device of ["wasm", "webgpu"] as const) {
    if (backend !== "auto" && backend !== device) continue;
    const missing = device === "webgpu" ? await noWebgpu(backend === "webgpu") : undefined;
    if (missing !== undefined) {
      notes.push(missing);
      continue;
    }
    report(`Loading the model for ${device === "webgpu" ? "WebGPU" : "WebAssembly"}…`);
    try {
      const ort = device === "webgpu" ? await webgpu() : await wasm(usable);
      // A graphics processor would hand all tokens over in between.
      const pictureOnly = device === "wasm";
      const sam = await load(source, ort, { variant, device, encoder: false, pictureOnly });
      measured[device] = await measure(sam);
      if (chosen === undefined || measured[device] < (measured[chosen.device] ?? 0)) {
        await chosen?.sam.close();
        chosen = { sam, device };
      } else await sam.close();
    } catch (error) {
      // WebGPU's troubles are no one else's; what is wrong with the bundle is.
      if (chosen === undefined) throw error;
      notes.push(`WebGPU cannot run this model: ${reason(error)}`);
    }
  }
  if (chosen === undefined)
    throw new SamEdgeError("backend", `${notes.join("; ")}; choose another backend in the settings`);
  return { ...chosen, threads: chosen.device === "wasm" ? usable : 1, measured, notes };
}
