/** Encodes images and decodes prompts to masks, as in sam_edge/runtime/sam.py. */

import { SamEdgeError } from "./errors.ts";
import type { Image, Size } from "./image.ts";
import { bilinearTaps } from "./interpolate.ts";
import {
  chooseVariant,
  coordinateSpace,
  findFile,
  fixedPointCount,
  type Graph,
  type Manifest,
  readManifest,
  type Variant,
} from "./manifest.ts";
import { type Device, type OrtModule, openSession } from "./ort.ts";
import { composeUpscaling, mask, type Upscaling } from "./postprocess.ts";
import { letterbox, normalize, resize, resizedSize } from "./preprocess.ts";
import { encodePrompts, type Prompt } from "./prompts.ts";
import { readVerified, type Source } from "./source.ts";
import { floats, type Session, type Tensor, type Tensors } from "./tensor.ts";

// Prompts per run of the decoder. Larger batches use more memory without being faster.
const DECODER_BATCH = 8;
// The decoder upscales each image token to 4 x 4 logits.
const LOGIT_ROWS_PER_TOKEN = 4;

/** An encoded image. `tensors` holds `image_embeddings` and the encoder's other outputs, if any. */
export interface ImageEmbedding {
  readonly tensors: Tensors;
  readonly originalSize: Size;
  /** SHA-256 of the checkpoint that encoded the image. */
  readonly model: string;
}

/** M candidate masks for each of N prompts, as low-resolution logits. */
export interface Decoded {
  readonly n: number;
  readonly m: number;
  /** (N, M): predicted IoU or stability score of each mask, depending on the manifest's `mask.scores`. */
  readonly scores: Float32Array;
  /** (h, w) of the low-resolution logits. */
  readonly size: Size;
  /** (N, M, h, w) logits. */
  readonly lowRes: Float32Array;
}

/** A candidate mask whose score is above the threshold. */
export interface Candidate {
  /** Index of the prompt. */
  readonly prompt: number;
  /** Index of the mask among the prompt's candidates. */
  readonly index: number;
  readonly score: number;
  /** (h, w) logits. */
  readonly lowRes: Float32Array;
}

/** M candidate masks of one prompt. */
export interface Masks {
  /** M masks (H, W) at the original image's size, 1 inside. */
  readonly masks: Uint8Array<ArrayBuffer>[];
  readonly scores: Float32Array;
  /** M low-resolution logits (h, w); each can be the `maskInput` of the next prompt. */
  readonly lowRes: Float32Array[];
}

/** Options of `load`. */
export interface LoadOptions {
  /** Id of a variant. Default: see `chooseVariant`. */
  readonly variant?: string;
  /** Default: "wasm". */
  readonly device?: Device;
  /** Whether to load the encoder now; not needed if embeddings come from a server. Default: true. */
  readonly encoder?: boolean;
  /**
   * Whether to skip the padded area when decoding, if the variant supports it. Faster, but logits in the
   * padded area are 0, so that they cannot be the next prompt's `maskInput`. Default: false.
   */
  readonly skipPadding?: boolean;
}

/** One variant of a bundle, loaded on one device. Created by `load`. */
export class Sam {
  readonly manifest: Manifest;
  readonly variant: Variant;
  readonly device: Device;
  /** Whether the padding below the image is skipped: logits there are 0. */
  readonly skipPadding: boolean;
  readonly #open: (graph: Graph) => Promise<Session>;
  readonly #sessions = new Map<string, Promise<Session>>();

  constructor(
    manifest: Manifest,
    variant: Variant,
    device: Device,
    open: (graph: Graph) => Promise<Session>,
    skipPadding = false,
  ) {
    this.manifest = manifest;
    this.variant = variant;
    this.device = device;
    this.skipPadding = skipPadding && canSkipPadding(variant);
    this.#open = open;
  }

  /** Returns the session of one of the variant's graphs, created on first use. */
  session(part: "encoder" | "decoder" | "scorer" | "upscaler"): Promise<Session> {
    const graph = this.variant[part];
    if (graph === undefined)
      throw new SamEdgeError("manifest", `${this.variant.id} has no ${part}; export the bundle again`);
    let session = this.#sessions.get(part);
    if (session === undefined) {
      session = this.#open(graph);
      this.#sessions.set(part, session);
      // A failed load, for example without a connection, is retried on the next call.
      session.catch(() => this.#sessions.delete(part));
    }
    return session;
  }

  /** Encodes an image (RGB or RGBA). Throws a `SamEdgeError` for an invalid image. */
  async encode(image: Image): Promise<ImageEmbedding> {
    const { manifest } = this;
    const rules = manifest.input;
    const resized = resize(image, rules);
    const [height, width] = rules.size;
    const inputs: Record<string, Tensor> = this.variant.encoder.inputs.some(({ name }) => name === "image")
      ? {
          image: { data: letterbox(resized, rules), dims: [1, height, width, 3] },
          resized_size: { data: Float32Array.of(resized.height, resized.width), dims: [2] },
        }
      : { images: { data: normalize(resized, rules), dims: [1, 3, height, width] } };
    const tensors = await (await this.session("encoder")).run(inputs);
    floats(tensors, "image_embeddings");
    return { tensors, originalSize: [image.height, image.width], model: manifest.model.checkpoint.sha256 };
  }

  /**
   * Returns the masks of one prompt at the image's size.
   *
   * With `multimask`, the candidates for ambiguous prompts, else one mask. Throws a `SamEdgeError` for an
   * invalid prompt or for an embedding of another model.
   */
  async predict(embedding: ImageEmbedding, prompt: Prompt, multimask = true): Promise<Masks> {
    const { m, scores, lowRes, size } = await this.decode(embedding, [prompt], multimask);
    const up = this.upscaling(embedding.originalSize);
    const planes = Array.from({ length: m }, (_, i) => plane(lowRes, i, size));
    const limit = this.manifest.mask.low_res_limit;
    return {
      masks: planes.map((logits) => mask(up, logits, this.manifest.mask.threshold)),
      scores,
      lowRes: limit === null ? planes : planes.map((logits) => logits.map((x) => clamp(x, limit))),
    };
  }

  /**
   * Returns low-resolution logits and scores of prompts that have the same number of points each.
   *
   * With `multimask`, the candidates for ambiguous prompts. Else one mask: the model's single-mask output, or
   * the candidate with the best score if the model has no such output.
   */
  async decode(embedding: ImageEmbedding, prompts: readonly Prompt[], multimask = true): Promise<Decoded> {
    const { count, first_multimask: first, size } = this.manifest.mask;
    const tokenRows = this.#tokenRows(embedding);
    const run = this.skipPadding ? await this.#twoStageRun(tokenRows) : (await this.session("decoder")).run;
    const part = this.skipPadding ? "scorer" : "decoder";
    const rows = this.skipPadding ? tokenRows * LOGIT_ROWS_PER_TOKEN : size[0];
    const computed = rows * size[1];
    const area = size[0] * size[1];
    const [from, to] = multimask || first === 0 ? [first, count] : [0, first];
    const single = !multimask && first === 0;
    const m = single ? 1 : to - from;
    const scores = new Float32Array(prompts.length * m);
    const lowRes = new Float32Array(prompts.length * m * area);
    for (const { start, n, inputs } of this.#batches(embedding, prompts, part)) {
      const outputs = await run(inputs);
      const allScores = floats(outputs, "iou_predictions", n, count);
      const allMasks = floats(outputs, "low_res_masks", n, count, rows, size[1]);
      for (let i = 0; i < n; i++) {
        const promptScores = allScores.subarray(i * count, (i + 1) * count);
        const begin = single ? promptScores.indexOf(Math.max(...promptScores)) : from;
        scores.set(promptScores.subarray(begin, begin + m), (start + i) * m);
        for (let k = 0; k < m; k++) {
          const at = (i * count + begin + k) * computed;
          lowRes.set(allMasks.subarray(at, at + computed), ((start + i) * m + k) * area);
        }
      }
    }
    return { n: prompts.length, m, scores, size, lowRes };
  }

  /** Returns the number of rows of image tokens on which masks of the unpadded image depend. */
  #tokenRows(embedding: ImageEmbedding): number {
    const rules = coordinateSpace(this.manifest);
    const [height] = resizedSize(embedding.originalSize, rules);
    const [, last] = bilinearTaps(this.manifest.mask.size[0], rules.size[0], height - 1);
    return Math.ceil((last + 1) / LOGIT_ROWS_PER_TOKEN);
  }

  /** Returns a function that runs the scorer, then the upscaler on the first `tokenRows` rows of image tokens. */
  async #twoStageRun(tokenRows: number): Promise<Session["run"]> {
    const [scorer, upscaler] = [await this.session("scorer"), await this.session("upscaler")];
    const [height, width] = this.manifest.mask.size.map((side) => side / LOGIT_ROWS_PER_TOKEN);
    return async (inputs) => {
      const scored = await scorer.run(inputs);
      floats(scored, "image_tokens", inputs.point_coords.dims[0], height * width, -1);
      const image_tokens = firstTokens(scored.image_tokens, tokenRows * width);
      return { ...scored, ...(await upscaler.run({ ...scored, image_tokens })) };
    };
  }

  /**
   * Yields the candidate masks whose score is above `threshold`, in the order of the prompts; 0 yields all.
   *
   * If the variant has a two-stage decoder, only prompts with a passing score are upscaled.
   */
  async *candidates(
    embedding: ImageEmbedding,
    prompts: readonly Prompt[],
    threshold: number,
  ): AsyncGenerator<Candidate> {
    const { count, first_multimask: first, size } = this.manifest.mask;
    const tensors = this.variant.upscaler?.inputs;
    if (tensors === undefined || this.variant.scorer === undefined || threshold <= 0) {
      const { m, scores, lowRes } = await this.decode(embedding, prompts);
      for (const [at, score] of scores.entries()) {
        if (threshold > 0 && !(score > threshold)) continue;
        yield { prompt: Math.floor(at / m), index: at % m, score, lowRes: plane(lowRes, at, size) };
      }
      return;
    }
    const [scorer, upscaler] = [await this.session("scorer"), await this.session("upscaler")];
    for (const { start, n, inputs } of this.#batches(embedding, prompts, "scorer")) {
      const scored = await scorer.run(inputs);
      const scores = floats(scored, "iou_predictions", n, count);
      const passes = (i: number, m: number) => m >= first && scores[i * count + m] > threshold;
      const passing = Array.from({ length: n }, (_, i) => i).filter((i) =>
        Array.from({ length: count }, (_, m) => m).some((m) => passes(i, m)),
      );
      if (passing.length === 0) continue;
      const selected: Record<string, Tensor> = {};
      for (const { name } of tensors)
        selected[name] = selectRows(floats(scored, name), scored[name].dims, passing);
      const masks = floats(await upscaler.run(selected), "low_res_masks", passing.length, count, ...size);
      for (const [row, i] of passing.entries()) {
        for (let m = first; m < count; m++) {
          if (!passes(i, m)) continue;
          const lowRes = plane(masks, row * count + m, size);
          yield { prompt: start + i, index: m - first, score: scores[i * count + m], lowRes };
        }
      }
    }
  }

  /** Returns the filters that upscale logits of an image of `originalSize` to `size`, such as a canvas's. */
  upscaling(originalSize: Size, size: Size = originalSize): Upscaling {
    const { input, mask } = this.manifest;
    // Without padding to crop, the published predictors resize masks once.
    if (input.resize === "stretch") return composeUpscaling(mask.size, mask.size, mask.size, size);
    const rules = coordinateSpace(this.manifest);
    return composeUpscaling(mask.size, rules.size, resizedSize(originalSize, rules), size);
  }

  /** Splits prompts into batches of decoder inputs, of size 1 if they have masks. */
  #batches(embedding: ImageEmbedding, prompts: readonly Prompt[], part: "decoder" | "scorer") {
    const { manifest, variant } = this;
    if (embedding.model !== manifest.model.checkpoint.sha256)
      throw new SamEdgeError(
        "prompt",
        "the embedding was made with another model; encode the image again with this one",
      );
    const resized = resizedSize(embedding.originalSize, coordinateSpace(manifest));
    const fixed = variant.absent_label === undefined ? null : fixedPointCount(variant);
    const [h, w] = manifest.mask.size;
    const encoded = encodePrompts(
      prompts,
      embedding.originalSize,
      resized,
      manifest.prompt,
      manifest.mask.size,
      fixed,
    );
    const { k, coords, labels, maskInput } = encoded;
    const exported = variant[part]?.inputs.find(({ name }) => name === "point_coords")?.shape[0];
    const batch = maskInput ? 1 : typeof exported === "number" ? Math.max(exported, 1) : DECODER_BATCH;
    const batches: { start: number; n: number; inputs: Tensors }[] = [];
    for (let start = 0; start < encoded.n; start += batch) {
      const n = Math.min(batch, encoded.n - start);
      const inputs: Record<string, Tensor> = {
        ...embedding.tensors,
        point_coords: { data: coords.subarray(start * k * 2, (start + n) * k * 2), dims: [n, k, 2] },
        point_labels: { data: labels.subarray(start * k, (start + n) * k), dims: [n, k] },
        mask_input: {
          data: maskInput?.subarray(start * h * w, (start + 1) * h * w) ?? new Float32Array(h * w),
          dims: [1, 1, h, w],
        },
        has_mask_input: { data: Float32Array.of(maskInput ? 1 : 0), dims: [1] },
      };
      if (manifest.prompt.text_embeddings) {
        const dim = embedding.tensors.image_embeddings.dims[1];
        inputs.text_embeddings = { data: new Float32Array(0), dims: [n, 0, dim] };
      }
      batches.push({ start, n, inputs });
    }
    return batches;
  }

  /** Releases the sessions. */
  async close(): Promise<void> {
    const sessions = await Promise.allSettled(this.#sessions.values());
    this.#sessions.clear();
    for (const session of sessions) if (session.status === "fulfilled") await session.value.close();
  }
}

/**
 * Loads one variant of a bundle and verifies the hashes of its files.
 *
 * Throws a `SamEdgeError` if the manifest or a file is invalid, or if ONNX Runtime cannot load a graph.
 *
 *     const sam = await load(httpSource("https://example.org/bundle/"), ort);
 *     const { masks } = await sam.predict(await sam.encode(image), { points: [[226, 121]] });
 */
export async function load(source: Source, ort: OrtModule, options: LoadOptions = {}): Promise<Sam> {
  const manifest = await readManifest(source);
  const variant = chooseVariant(manifest, options.variant);
  const device = options.device ?? "wasm";
  const open = async (graph: Graph) => {
    const model = await readVerified(source, findFile(variant, graph.path));
    const isStage = graph === variant.scorer || graph === variant.upscaler;
    // A stage may reference weights in the decoder's file.
    const external = isStage
      ? [
          {
            path: variant.decoder.path.split("/").at(-1) ?? "",
            data: await readVerified(source, findFile(variant, variant.decoder.path)),
          },
        ]
      : [];
    return openSession(ort, model, device, external);
  };
  const sam = new Sam(manifest, variant, device, open, options.skipPadding);
  for (const part of sam.skipPadding ? (["scorer", "upscaler"] as const) : (["decoder"] as const))
    await sam.session(part);
  if (options.encoder ?? true) await sam.session("encoder");
  return sam;
}

/** Returns the view of the `i`-th (h, w) plane of an array (..., h, w). */
export function plane(lowRes: Float32Array, i: number, [h, w]: Size): Float32Array {
  return lowRes.subarray(i * h * w, (i + 1) * h * w);
}

/** Returns the given rows along the first axis, copied. */
function selectRows(data: Float32Array, dims: readonly number[], rows: readonly number[]): Tensor {
  const length = data.length / dims[0];
  const chosen = new Float32Array(rows.length * length);
  for (const [to, from] of rows.entries())
    chosen.set(data.subarray(from * length, (from + 1) * length), to * length);
  return { data: chosen, dims: [rows.length, ...dims.slice(1)] };
}

/** Whether a variant's upscaler accepts fewer image tokens than the whole input has. */
function canSkipPadding({ upscaler }: Variant): boolean {
  return (
    upscaler?.inputs.some(({ name, shape }) => name === "image_tokens" && shape[1] === "num_tokens") ?? false
  );
}

/** Returns the first `count` tokens of each prompt of a tensor (N, tokens, dim). */
function firstTokens({ data, dims: [n, tokens, dim] }: Tensor, count: number): Tensor {
  if (n === 1) return { data: data.subarray(0, count * dim), dims: [1, count, dim] };
  const chosen = new Float32Array(n * count * dim);
  for (let i = 0; i < n; i++)
    chosen.set(data.subarray(i * tokens * dim, (i * tokens + count) * dim), i * count * dim);
  return { data: chosen, dims: [n, count, dim] };
}

function clamp(value: number, limit: number): number {
  return Math.min(limit, Math.max(-limit, value));
}
