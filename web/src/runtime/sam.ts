/** `encode` an image once, `decode` masks for as many prompts as you like; as sam_edge/runtime/sam.py. */

import { SamEdgeError } from "./errors.ts";
import type { Image, Size } from "./image.ts";
import { between } from "./interpolate.ts";
import {
  chooseVariant,
  fileOf,
  fixedPoints,
  type Graph,
  type Manifest,
  readManifest,
  square,
  type Variant,
} from "./manifest.ts";
import { type Device, type OrtModule, openSession } from "./ort.ts";
import { mask, type Upscaling, upscaling } from "./postprocess.ts";
import { letterbox, normalize, resize, resizedSize } from "./preprocess.ts";
import { encodePrompts, type Prompt } from "./prompts.ts";
import { readChecked, type Source } from "./source.ts";
import { floats, type Session, type Tensor, type Tensors } from "./tensor.ts";

// Prompts in one run of the decoder. More only take memory.
const DECODER_BATCH = 8;
// Rows of logits made of one line of image tokens.
const ROWS_OF_A_LINE = 4;

/** An encoded image: a value. `tensors` holds `image_embeddings` and what else the model's encoder makes. */
export interface ImageEmbedding {
  readonly tensors: Tensors;
  readonly originalSize: Size;
  /** SHA-256 of the checkpoint it was made with. */
  readonly model: string;
}

/** M candidates for each of N prompts. */
export interface Decoded {
  readonly n: number;
  readonly m: number;
  /** (N, M): the model's own estimate of each mask's IoU, or its stability, as the manifest says. */
  readonly scores: Float32Array;
  /** (h, w) of the logits. */
  readonly size: Size;
  /** (N, M, h, w). */
  readonly lowRes: Float32Array;
}

/** One candidate of everything-mode that passed. */
export interface Candidate {
  readonly prompt: number;
  readonly index: number;
  readonly score: number;
  readonly lowRes: Float32Array;
}

export interface Masks {
  /** M masks (H, W), 1 inside, at the original image's size. */
  readonly masks: Uint8Array<ArrayBuffer>[];
  readonly scores: Float32Array;
  /** M low-resolution logits (h, w); one of them can be the `maskInput` of a next prompt. */
  readonly lowRes: Float32Array[];
}

export interface LoadOptions {
  /** A variant's id; the first ONNX variant if not given. */
  readonly variant?: string;
  readonly device?: Device;
  /** Whether images are encoded here; embeddings can come from elsewhere. Default: yes. */
  readonly encoder?: boolean;
  /**
   * Draw masks only where the picture is, and not where its input was padded, if the variant can: logits there
   * are 0. Faster, for masks that are no next prompt's `maskInput`. Default: no.
   */
  readonly pictureOnly?: boolean;
}

/** One variant of a bundle, loaded on one device. */
export class Sam {
  readonly manifest: Manifest;
  readonly variant: Variant;
  readonly device: Device;
  /** Whether logits are 0 where the input was padded below the picture. */
  readonly pictureOnly: boolean;
  readonly #open: (graph: Graph) => Promise<Session>;
  readonly #sessions = new Map<string, Promise<Session>>();

  constructor(
    manifest: Manifest,
    variant: Variant,
    device: Device,
    open: (graph: Graph) => Promise<Session>,
    pictureOnly = false,
  ) {
    this.manifest = manifest;
    this.variant = variant;
    this.device = device;
    this.pictureOnly = pictureOnly && takesLines(variant);
    this.#open = open;
  }

  /** A graph of the variant, opened when it is first asked for. */
  session(part: "encoder" | "decoder" | "scorer" | "upscaler"): Promise<Session> {
    const graph = this.variant[part];
    if (graph === undefined)
      throw new SamEdgeError("manifest", `${this.variant.id} has no ${part}; export the bundle again`);
    let session = this.#sessions.get(part);
    if (session === undefined) {
      session = this.#open(graph);
      this.#sessions.set(part, session);
      // What failed, for want of a connection say, is tried again the next time.
      session.catch(() => this.#sessions.delete(part));
    }
    return session;
  }

  /** Encode an image. Throws a `SamEdgeError`: not an image. */
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

  /** Masks of one prompt at the image's size. Throws a `SamEdgeError`: a prompt that makes no sense. */
  async predict(embedding: ImageEmbedding, prompt: Prompt, multimask = true): Promise<Masks> {
    const { m, scores, lowRes, size } = await this.decode(embedding, [prompt], multimask);
    const up = this.upscaling(embedding.originalSize);
    const planes = Array.from({ length: m }, (_, i) => plane(lowRes, i, size));
    const limit = this.manifest.mask.low_res_limit;
    return {
      masks: planes.map((logits) => mask(up, logits, this.manifest.mask.threshold)),
      scores,
      lowRes: limit === null ? planes : planes.map((logits) => logits.map((x) => clip(x, limit))),
    };
  }

  /**
   * Low-resolution logits and scores, without upscaling, of prompts with the same number of points each.
   *
   * With `multimask`, the masks for ambiguous prompts; else one: the mask for others, or the best-scored.
   */
  async decode(embedding: ImageEmbedding, prompts: readonly Prompt[], multimask = true): Promise<Decoded> {
    const { count, first_multimask: first, size } = this.manifest.mask;
    const lines = this.#lines(embedding);
    const run = this.pictureOnly ? await this.#inStages(lines) : (await this.session("decoder")).run;
    const part = this.pictureOnly ? "scorer" : "decoder";
    const rows = this.pictureOnly ? lines * ROWS_OF_A_LINE : size[0];
    const drawn = rows * size[1];
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
        const own = allScores.subarray(i * count, (i + 1) * count);
        const begin = single ? own.indexOf(Math.max(...own)) : from;
        scores.set(own.subarray(begin, begin + m), (start + i) * m);
        for (let k = 0; k < m; k++) {
          const at = (i * count + begin + k) * drawn;
          lowRes.set(allMasks.subarray(at, at + drawn), ((start + i) * m + k) * area);
        }
      }
    }
    return { n: prompts.length, m, scores, size, lowRes };
  }

  /** How many lines of image tokens the picture's masks depend on. */
  #lines(embedding: ImageEmbedding): number {
    const rules = square(this.manifest);
    const [height] = resizedSize(embedding.originalSize, rules);
    const [, last] = between(this.manifest.mask.size[0], rules.size[0], height - 1);
    return Math.ceil((last + 1) / ROWS_OF_A_LINE);
  }

  /** The decoder in two stages, the second only of the upper `lines` of tokens. */
  async #inStages(lines: number): Promise<Session["run"]> {
    const [scorer, upscaler] = [await this.session("scorer"), await this.session("upscaler")];
    const [height, width] = this.manifest.mask.size.map((side) => side / ROWS_OF_A_LINE);
    return async (inputs) => {
      const found = await scorer.run(inputs);
      floats(found, "image_tokens", inputs.point_coords.dims[0], height * width, -1);
      const image_tokens = firstTokens(found.image_tokens, lines * width);
      return { ...found, ...(await upscaler.run({ ...found, image_tokens })) };
    };
  }

  /**
   * The candidates of prompts whose scores are above `threshold`, in order; 0 or less for all.
   *
   * Where the variant has the decoder in two stages, masks are drawn for no other prompts.
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
      const found = await scorer.run(inputs);
      const scores = floats(found, "iou_predictions", n, count);
      const passes = (i: number, m: number) => m >= first && scores[i * count + m] > threshold;
      const drawn = Array.from({ length: n }, (_, i) => i).filter((i) =>
        Array.from({ length: count }, (_, m) => m).some((m) => passes(i, m)),
      );
      if (drawn.length === 0) continue;
      const chosen: Record<string, Tensor> = {};
      for (const { name } of tensors) chosen[name] = rowsOf(floats(found, name), found[name].dims, drawn);
      const masks = floats(await upscaler.run(chosen), "low_res_masks", drawn.length, count, ...size);
      for (const [row, i] of drawn.entries()) {
        for (let m = first; m < count; m++) {
          if (!passes(i, m)) continue;
          const lowRes = plane(masks, row * count + m, size);
          yield { prompt: start + i, index: m - first, score: scores[i * count + m], lowRes };
        }
      }
    }
  }

  /** How low-resolution logits are brought to an image of `originalSize`, or, for drawing, to `size`. */
  upscaling(originalSize: Size, size: Size = originalSize): Upscaling {
    const { input, mask } = this.manifest;
    // Without padding to cut off, published predictors resize masks once.
    if (input.resize === "stretch") return upscaling(mask.size, mask.size, mask.size, size);
    const rules = square(this.manifest);
    return upscaling(mask.size, rules.size, resizedSize(originalSize, rules), size);
  }

  /** The inputs of each run: one prompt at a time where the graph was exported so, or prompts have masks. */
  #batches(embedding: ImageEmbedding, prompts: readonly Prompt[], part: "decoder" | "scorer") {
    const { manifest, variant } = this;
    if (embedding.model !== manifest.model.checkpoint.sha256)
      throw new SamEdgeError(
        "prompt",
        "the embedding was made with another model; encode the image again with this one",
      );
    const resized = resizedSize(embedding.originalSize, square(manifest));
    const fixed = variant.absent_label === undefined ? null : fixedPoints(variant);
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

  /** Free the sessions. */
  async close(): Promise<void> {
    const sessions = await Promise.allSettled(this.#sessions.values());
    this.#sessions.clear();
    for (const session of sessions) if (session.status === "fulfilled") await session.value.close();
  }
}

/**
 * Load a bundle: its manifest, and the decoder and the encoder of one variant, with their hashes checked.
 *
 * Throws a `SamEdgeError`: a bundle or files that cannot be used; the message says why.
 */
export async function load(source: Source, ort: OrtModule, options: LoadOptions = {}): Promise<Sam> {
  const manifest = await readManifest(source);
  const variant = chooseVariant(manifest, options.variant);
  const device = options.device ?? "wasm";
  const open = async (graph: Graph) => {
    const model = await readChecked(source, fileOf(variant, graph.path));
    const isStage = graph === variant.scorer || graph === variant.upscaler;
    // A stage's weights may be those of the decoder's file.
    const external = isStage
      ? [
          {
            path: variant.decoder.path.split("/").at(-1) ?? "",
            data: await readChecked(source, fileOf(variant, variant.decoder.path)),
          },
        ]
      : [];
    return openSession(ort, model, device, external);
  };
  const sam = new Sam(manifest, variant, device, open, options.pictureOnly);
  for (const part of sam.pictureOnly ? (["scorer", "upscaler"] as const) : (["decoder"] as const))
    await sam.session(part);
  if (options.encoder ?? true) await sam.session("encoder");
  return sam;
}

/** The `i`th (h, w) of an array of such. */
export function plane(lowRes: Float32Array, i: number, [h, w]: Size): Float32Array {
  return lowRes.subarray(i * h * w, (i + 1) * h * w);
}

function rowsOf(data: Float32Array, dims: readonly number[], rows: readonly number[]): Tensor {
  const length = data.length / dims[0];
  const chosen = new Float32Array(rows.length * length);
  for (const [to, from] of rows.entries())
    chosen.set(data.subarray(from * length, (from + 1) * length), to * length);
  return { data: chosen, dims: [rows.length, ...dims.slice(1)] };
}

/** Whether the variant's upscaler can do with the upper lines of the image's tokens. */
function takesLines({ upscaler }: Variant): boolean {
  return (
    upscaler?.inputs.some(({ name, shape }) => name === "image_tokens" && shape[1] === "num_tokens") ?? false
  );
}

/** The first `count` of (N, tokens, dim) of each prompt. */
function firstTokens({ data, dims: [n, tokens, dim] }: Tensor, count: number): Tensor {
  if (n === 1) return { data: data.subarray(0, count * dim), dims: [1, count, dim] };
  const chosen = new Float32Array(n * count * dim);
  for (let i = 0; i < n; i++)
    chosen.set(data.subarray(i * tokens * dim, (i * tokens + count) * dim), i * count * dim);
  return { data: chosen, dims: [n, count, dim] };
}

function clip(value: number, limit: number): number {
  return Math.min(limit, Math.max(-limit, value));
}
