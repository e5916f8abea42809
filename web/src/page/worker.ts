/** Web worker that runs the encoder and the decoder off the page's main thread. */

import {
  type ErrorKind,
  errorMessage,
  everything,
  findFile,
  httpSource,
  type ImageEmbedding,
  mask,
  plane,
  readEmbedding,
  type Sam,
  SamEdgeError,
} from "../runtime/index.ts";
import { withCache } from "./cache.ts";
import { loadFastest } from "./devices.ts";
import type { Answer, DecodedMasks, Methods, Request } from "./protocol.ts";

type Report = (progress: string | number) => void;
type Handlers = {
  [K in keyof Methods]: (
    report: Report,
    ...args: Parameters<Methods[K]>
  ) => ReturnType<Methods[K]> | Promise<ReturnType<Methods[K]>>;
};

let sam: Sam | undefined;
let embedding: ImageEmbedding | undefined;
let cancelled = false;

function requireModel(): Sam {
  if (sam === undefined) throw new SamEdgeError("backend", "no model is loaded; choose one in the settings");
  return sam;
}

function requireEmbedding(): ImageEmbedding {
  if (embedding === undefined)
    throw new SamEdgeError("image", "no picture has been encoded; choose one first");
  return embedding;
}

const handlers: Handlers = {
  async loadModel(report, options) {
    await sam?.close();
    sam = embedding = undefined;
    const source = withCache(httpSource(options.bundle));
    const { sam: loaded, ...runsOn } = await loadFastest(source, options, report);
    sam = loaded;
    return {
      ...runsOn,
      name: sam.manifest.model.name,
      encoderBytes: findFile(sam.variant, sam.variant.encoder.path).bytes,
    };
  },

  async encode(_, image) {
    embedding = undefined;
    embedding = await requireModel().encode(image);
    return undefined;
  },

  useEmbedding(_, bytes) {
    embedding = readEmbedding(bytes);
    return { size: embedding.originalSize };
  },

  async decode(_, prompt, size, which): Promise<DecodedMasks> {
    const [model, image] = [requireModel(), requireEmbedding()];
    const start = performance.now();
    const decoded = await model.decode(image, [prompt]);
    const milliseconds = performance.now() - start;
    const scores = [...decoded.scores];
    const best = scores.indexOf(Math.max(...scores));
    const up = model.upscaling(image.originalSize, size ?? undefined);
    const isRequested = (i: number) => which === "all" || i === (which === "best" ? best : which);
    const masks = scores.map((_, i) =>
      isRequested(i) ? mask(up, plane(decoded.lowRes, i, decoded.size), model.manifest.mask.threshold) : null,
    );
    return { scores, best, masks, size: up.originalSize, milliseconds };
  },

  async everything(report, pointsPerSide) {
    cancelled = false;
    const start = performance.now();
    const records = await everything(requireModel(), requireEmbedding(), {
      pointsPerSide,
      async progress(done, total) {
        report(done / total);
        // Yield, so that a `cancel` message can be handled.
        await new Promise((resolve) => setTimeout(resolve));
        return !cancelled;
      },
    });
    return { records, milliseconds: performance.now() - start };
  },

  cancel() {
    cancelled = true;
    return undefined;
  },
};

self.onmessage = async ({ data: { id, method, args } }: MessageEvent<Request>) => {
  const post = (answer: Answer, transfer: Transferable[] = []) => self.postMessage(answer, { transfer });
  try {
    const handler = handlers[method] as (report: Report, ...args: unknown[]) => unknown;
    const result = await handler((progress) => post({ id, progress }), ...args);
    const masks = (result as Partial<DecodedMasks> | undefined)?.masks ?? [];
    post(
      { id, result },
      masks.flatMap((one) => (one === null ? [] : [one.buffer])),
    );
  } catch (error) {
    const kind: ErrorKind = error instanceof SamEdgeError ? error.kind : "backend";
    post({ id, error: { kind, message: errorMessage(error) } });
  }
};
