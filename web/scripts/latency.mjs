// @ts-nocheck: `prepare` runs in the page
/**
 * Measures the latency of a click's decode in headless Chromium; prints a Markdown table, in milliseconds:
 * `npm run latency -- [--clicks 100] [--threads 1,2] [--published decoder-segment-anything.onnx] BUNDLE...`
 *
 * Decoders take turns, a few clicks at a time, so that other load on the machine affects all of them alike. If a
 * bundle was exported with `--compat segment-anything`, its decoder-segment-anything.onnx is measured too.
 */

import { existsSync, readFileSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { chromium } from "playwright-core";
import { serve } from "./static-server.mjs";

const ORT = fileURLToPath(new URL("../node_modules/onnxruntime-web/dist/", import.meta.url));
// (height, width) of the image, a 16:9 photograph; the published graph upscales its masks to this size.
const SIZE = [1080, 1920];
// Clicks per turn.
const TURN = 10;

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    clicks: { type: "string", default: "100" },
    threads: { type: "string", default: "1,2" },
    published: { type: "string", multiple: true, default: [] },
    extra: { type: "string", multiple: true, default: [] },
    embedding: { type: "string", default: "1,256,64,64" },
    input: { type: "string", default: "1024" },
  },
});

/**
 * A decoder to measure. `absent`: number of points of a decoder that uses absent points; `stages`: the graphs of
 * a two-stage decoder, and the number of image tokens of the unpadded image.
 * @typedef {{ name: string, file: string, embeddings: Record<string, number[]>, input: number,
 *   absent: number | null, stages?: { scorer: string, upscaler: string, tokens: number } }} Row
 */

/**
 * Returns the decoders to measure: of every ONNX variant of the bundles, then those given by options.
 * @returns {Row[]}
 */
function rows() {
  /** @type {Row[]} */
  const found = [];
  for (const folder of positionals) {
    const manifest = JSON.parse(readFileSync(join(folder, "manifest.json"), "utf8"));
    const input = manifest.prompt.coordinate_size[0];
    for (const variant of manifest.variants) {
      if (variant.format !== "onnx") continue;
      /** @type {Record<string, number[]>} */
      const embeddings = {};
      for (const { name, shape } of variant.encoder.outputs)
        embeddings[name] = shape.map((/** @type {unknown} */ side) => (typeof side === "number" ? side : 1));
      const coords = variant.decoder.inputs.find(
        (/** @type {{ name: string }} */ one) => one.name === "point_coords",
      );
      const absent = variant.absent_label === undefined ? null : coords.shape[1];
      const add = (/** @type {string} */ name, /** @type {string} */ file) =>
        found.push({ name: `${manifest.model.name} ${name}`, file, embeddings, input, absent });
      add(`${variant.id.replace(/^onnx-/, "")}, sam-edge`, resolve(folder, variant.decoder.path));
      const { scorer, upscaler } = variant;
      if (upscaler?.inputs.some((/** @type {{ shape: unknown[] }} */ one) => one.shape[1] === "num_tokens")) {
        const [, , height, width] = embeddings.image_embeddings;
        const tokens = width * Math.min(height, Math.ceil((height * SIZE[0]) / Math.max(...SIZE) + 1 / 4));
        add(
          `${variant.id.replace(/^onnx-/, "")}, sam-edge, padding skipped`,
          resolve(folder, variant.decoder.path),
        );
        Object.assign(found.at(-1) ?? {}, {
          stages: { scorer: basename(scorer.path), upscaler: basename(upscaler.path), tokens },
        });
      }
      const published = resolve(folder, dirname(variant.decoder.path), "decoder-segment-anything.onnx");
      if (existsSync(published))
        add(`${variant.id.replace(/^onnx-/, "")}, sam-edge with upscaling`, published);
    }
  }
  for (const file of [...values.published, ...values.extra]) {
    const embeddings = { image_embeddings: values.embedding.split(",").map(Number) };
    found.push({
      name: basename(file),
      file: resolve(file),
      embeddings,
      input: Number(values.input),
      absent: null,
    });
  }
  return found;
}

/** Runs in the page: creates the sessions and defines `click`, which times decodes. */
async function prepare({ row, threads }) {
  const ort = await import("/ort/ort.wasm.min.mjs");
  ort.env.wasm.numThreads = threads;
  ort.env.wasm.wasmPaths = "/ort/";
  const read = async (url) => new Uint8Array(await (await fetch(url)).arrayBuffer());
  const decoder = await read(row.url);
  const name = row.url.split("/").at(-1);
  const open = (model, externalData = []) =>
    ort.InferenceSession.create(model, { executionProviders: ["wasm"], logSeverityLevel: 3, externalData });
  const stage = async (file) =>
    open(await read(row.url.replace(name, file)), [{ path: name, data: decoder }]);
  const session = row.stages ? await stage(row.stages.scorer) : await open(decoder);
  const upscaler = row.stages && (await stage(row.stages.upscaler));
  const feeds = {};
  const random = (dims) =>
    new ort.Tensor(
      "float32",
      Float32Array.from({ length: dims.reduce((a, b) => a * b, 1) }, (_, i) => Math.sin(i * 12.9)),
      dims,
    );
  for (const [name, dims] of Object.entries(row.embeddings)) feeds[name] = random(dims);
  const tensor = (data, dims) => new ort.Tensor("float32", Float32Array.from(data), dims);
  const points = row.absent ?? 2;
  feeds.has_mask_input = tensor([0], [1]);
  feeds.orig_im_size = tensor(row.size, [2]);
  const side = row.embeddings.image_embeddings[2] * 4;
  feeds.mask_input = tensor(new Float32Array(side * side), [1, 1, side, side]);
  const known = Object.fromEntries(
    Object.entries(feeds).filter(([name]) => session.inputNames.includes(name)),
  );
  globalThis.click = async (count) => {
    const times = [];
    for (let i = 0; i < count; i++) {
      const at = [row.input * (0.1 + 0.8 * Math.random()), row.input * (0.1 + 0.4 * Math.random())];
      const coords = Array(points * 2).fill(0);
      const labels = Array(points).fill(-2);
      coords.splice(0, 2, ...at);
      labels.splice(0, 2, 1, -1);
      const start = performance.now();
      const found = await session.run({
        ...known,
        point_coords: tensor(coords, [1, points, 2]),
        point_labels: tensor(labels, [1, points]),
      });
      if (row.stages) {
        const { mask_weights, image_tokens } = found;
        const dim = image_tokens.dims[2];
        const upper = image_tokens.data.subarray(0, row.stages.tokens * dim);
        await upscaler.run({
          mask_weights,
          image_tokens: new ort.Tensor("float32", upper, [1, row.stages.tokens, dim]),
        });
      }
      times.push(performance.now() - start);
    }
    return times;
  };
  await globalThis.click(3);
}

const quantile = (/** @type {number[]} */ times, /** @type {number} */ q) =>
  [...times].sort((a, b) => a - b)[Math.floor(q * (times.length - 1))];

const all = rows();
const server = await serve(
  { "/ort/": ORT, ...Object.fromEntries(all.map(({ file }, i) => [`/model${i}/`, dirname(file)])) },
  {
    intercept: (path) => (path === "/" ? { type: "text/html", body: "<!doctype html>" } : undefined),
    policy: false,
  },
);
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--headless=new"],
});
const clicks = Number(values.clicks);
const counts = values.threads.split(",").map(Number);
/** @type {Map<string, number[]>} */
const results = new Map();
// Thread counts are measured one after the other, because threads of idle sessions may spin.
for (const threads of counts) {
  const pages = [];
  for (const [i, row] of all.entries()) {
    const page = await browser.newPage();
    await page.goto(server.url);
    const url = `/model${i}/${basename(row.file)}`;
    await page.evaluate(prepare, { row: { ...row, url, size: SIZE }, threads });
    pages.push(page);
    results.set(`${i} ${threads}`, []);
  }
  for (let done = 0; done < clicks; done += TURN) {
    for (const [i, page] of pages.entries()) {
      await page.bringToFront();
      const times = await page.evaluate((count) => globalThis.click(count), Math.min(TURN, clicks - done));
      results.get(`${i} ${threads}`)?.push(...times);
    }
  }
  for (const page of pages) await page.close();
}
const version = browser.version();
await browser.close();
await server.close();

console.log(`p50 (p90) in ms of ${clicks} clicks, Chromium ${version}, onnxruntime-web wasm\n`);
console.log(`| Decoder | ${counts.map((n) => `${n} thread${n > 1 ? "s" : ""}`).join(" | ")} |`);
console.log(`| --- |${counts.map(() => " ---: |").join("")}`);
for (const [i, { name }] of all.entries()) {
  const cells = counts.map((threads) => {
    const times = results.get(`${i} ${threads}`) ?? [];
    return `${quantile(times, 0.5).toFixed(1)} (${quantile(times, 0.9).toFixed(1)})`;
  });
  console.log(`| ${name} | ${cells.join(" | ")} |`);
}
