import * as ort from "onnxruntime-web";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  everything,
  type ImageEmbedding,
  load,
  normalize,
  type Prompt,
  plane,
  resize,
  rle,
  Sam,
} from "../../src/runtime/index.ts";
import { folderSource } from "../../src/runtime/node.ts";
import {
  bits,
  bundle,
  bytes,
  floats,
  image,
  iou,
  maskOf,
  type ReferencePrompt,
  type ReferenceRecord,
  reference,
} from "../support.ts";

ort.env.wasm.numThreads = 1;

describe("preprocessing is bit-exact with the Python runtime", () => {
  test.each(reference.preprocessed.map((one, i) => [i, one] as const))("case %i", (_, one) => {
    const images = normalize(resize(image(one.image), one.rules), one.rules);
    const expected = floats(one.images);
    if (one.rules.antialias) expect(Buffer.from(images.buffer).equals(bytes(one.images))).toBe(true);
    else expect(largestDifference(images, expected)).toBeLessThan(1e-5);
  });
});

describe.each(Object.entries(reference.variants))("%s", (id, expected) => {
  let sam: Sam;
  let encoded: ImageEmbedding[];
  // For INT8, the Python runtime's embeddings, because INT8 kernels round differently on other processors.
  let embeddings: ImageEmbedding[];

  beforeAll(async () => {
    sam = await load(folderSource(bundle), ort, { variant: id });
    encoded = [];
    for (const one of reference.images) encoded.push(await sam.encode(image(one)));
    embeddings = sam.variant.precision === "fp32" ? encoded : encoded.map(withPythonTensors);
  });

  function withPythonTensors(embedding: ImageEmbedding, i: number): ImageEmbedding {
    const arrays = Object.entries(expected.embeddings[i]);
    const tensors = arrays.map(([name, { dims, data }]) => [name, { dims, data: floats(data) }]);
    return { ...embedding, tensors: Object.fromEntries(tensors) };
  }

  afterAll(() => sam.close());

  test("preprocessing of the golden images is bit-exact", () => {
    for (const [i, one] of reference.images.entries()) {
      const { input } = sam.manifest;
      const preprocessed = Buffer.from(normalize(resize(image(one), input), input).buffer);
      expect(preprocessed.equals(bytes(reference.inputs[i]))).toBe(true);
    }
  });

  test.each(expected.prompts.map((prompt, i) => [i, prompt] as const))(
    "prompt %i gives the masks of the Python runtime",
    async (_, prompt) => {
      const embedding = embeddings[prompt.image];
      const multimask = await sam.predict(embedding, toPrompt(prompt));
      expect(multimask.masks.length).toBe(prompt.count);
      for (const [m, mask] of multimask.masks.entries()) {
        expect(iou(mask, bits(prompt.masks, mask.length, m))).toBeGreaterThanOrEqual(0.999);
        // Stability scores count pixels, and single pixels may differ.
        const digits = sam.manifest.mask.scores === "stability" ? 2 : 3;
        expect(multimask.scores[m]).toBeCloseTo(prompt.scores[m], digits);
      }
      const [single] = (await sam.predict(embedding, toPrompt(prompt), false)).masks;
      expect(iou(single, bits(prompt.single, single.length))).toBeGreaterThanOrEqual(0.999);
    },
  );

  test("masks of images encoded in JavaScript pass the parity gate against Python", async () => {
    const ious: number[] = [];
    for (const prompt of expected.prompts) {
      const { masks, scores } = await sam.predict(encoded[prompt.image], toPrompt(prompt));
      const best = scores.indexOf(Math.max(...scores));
      ious.push(iou(masks[best], bits(prompt.masks, masks[best].length, best)));
    }
    expect(ious.reduce((a, b) => a + b) / ious.length).toBeGreaterThanOrEqual(expected.gate.mean_iou);
    expect(Math.min(...ious)).toBeGreaterThanOrEqual(expected.gate.min_iou);
  });

  test("skipping the padding gives the same masks", async () => {
    const skipping = await load(folderSource(bundle), ort, {
      variant: id,
      skipPadding: true,
      encoder: false,
    });
    expect(skipping.skipPadding).toBe(
      skipping.variant.browser === "web" && skipping.variant.upscaler !== undefined,
    );
    const [rows, columns] = skipping.manifest.mask.size;
    for (const [i, embedding] of embeddings.entries()) {
      const prompts: Prompt[] = [{ points: [[20, 30]] }, { points: [[50, 9]] }];
      const [full, partial] = [
        await sam.decode(embedding, prompts),
        await skipping.decode(embedding, prompts),
      ];
      expect(largestDifference(partial.scores, full.scores)).toBeLessThan(1e-4);
      const [height, width] = embedding.originalSize;
      const imageRowCount = Math.ceil((rows * height) / Math.max(height, width));
      for (let at = 0; at < full.n * full.m; at++) {
        const imageRows = (lowRes: Float32Array) =>
          plane(lowRes, at, full.size).subarray(0, imageRowCount * columns);
        expect(largestDifference(imageRows(partial.lowRes), imageRows(full.lowRes))).toBeLessThan(1e-3);
        const skipped = plane(partial.lowRes, at, full.size).subarray((imageRowCount + 8) * columns);
        if (skipping.skipPadding) expect(skipped.every((logit) => logit === 0)).toBe(true);
      }
      for (const prompt of expected.prompts.filter((one) => one.image === i)) {
        const [{ masks }, same] = [
          await sam.predict(embedding, toPrompt(prompt)),
          await skipping.predict(embedding, toPrompt(prompt)),
        ];
        for (const [m, mask] of masks.entries())
          expect(iou(same.masks[m], mask)).toBeGreaterThanOrEqual(0.999);
      }
    }
    await skipping.close();
  });

  test.each(reference.images.map((_, i) => i))(
    "everything in image %i, filtered by score first",
    async (i) => {
      const found = await everything(sam, embeddings[i], { pointsPerSide: 12 });
      // Other models may have random weights, so that no mask passes the thresholds.
      if (sam.manifest.model.family === "sam_edge_tiny") expect(found.length).toBeGreaterThan(0);
      expectSameMasks(found, expected.everything[i]);
    },
  );

  test("everything without a two-stage decoder", async () => {
    const { scorer: _, upscaler: __, ...oneStage } = sam.variant;
    const plain = new Sam(sam.manifest, oneStage, "wasm", () => sam.session("decoder"));
    expectSameMasks(await everything(plain, embeddings[0], { pointsPerSide: 12 }), expected.everything[0]);
  });
});

function toPrompt(prompt: ReferencePrompt): Prompt {
  return {
    points: prompt.points ?? undefined,
    labels: prompt.labels ?? undefined,
    box: prompt.box ?? undefined,
    maskInput: prompt.mask_input === null ? undefined : floats(prompt.mask_input),
  };
}

/** Expects the same number of masks, and for each expected mask one with an IoU of at least 0.99. */
function expectSameMasks(found: Awaited<ReturnType<typeof everything>>, expected: ReferenceRecord[]) {
  expect(found.length).toBe(expected.length);
  const masks = found.map((record) => maskOf(rle.compress(record.segmentation)));
  for (const record of expected) {
    const best = Math.max(...masks.map((mask) => iou(mask, maskOf(record.segmentation))));
    expect(best).toBeGreaterThanOrEqual(0.99);
  }
  for (const [i, record] of found.entries()) {
    expect(record.area).toBe(masks[i].reduce((sum, pixel) => sum + pixel, 0));
    const [height, width] = record.segmentation.size;
    expect(record.bbox).toEqual(rle.bbox(masks[i], [height, width]));
  }
}

function largestDifference(a: Float32Array, b: Float32Array): number {
  expect(a.length).toBe(b.length);
  let largest = 0;
  for (let i = 0; i < a.length; i++) largest = Math.max(largest, Math.abs(a[i] - b[i]));
  return largest;
}
