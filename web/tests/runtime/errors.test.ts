import * as ort from "onnxruntime-web";
import { describe, expect, test } from "vitest";
import {
  httpSource,
  load,
  readManifest,
  resize,
  SamEdgeError,
  type Source,
} from "../../src/runtime/index.ts";
import { folderSource } from "../../src/runtime/node.ts";
import { encodePrompts } from "../../src/runtime/prompts.ts";
import { bundle, image, reference } from "../support.ts";

ort.env.wasm.numThreads = 1;

const good = folderSource(bundle);
const manifest = await readManifest(good);
const text = new TextDecoder().decode(await good.read("manifest.json"));

/** Returns the bundle with the manifest `content`, and with its other files passed through `change`. */
function changed(content: string, change = (_: string, bytes: Uint8Array<ArrayBuffer>) => bytes): Source {
  return {
    name: "bundle",
    async read(path) {
      if (path === "manifest.json") return new TextEncoder().encode(content);
      return change(path, await good.read(path));
    },
  };
}

/** Returns the manifest's text after a change to its data, which makes its integrity hash invalid. */
// biome-ignore lint/suspicious/noExplicitAny: invalid on purpose
function edited(change: (data: any) => void): string {
  const data = JSON.parse(text);
  change(data);
  return JSON.stringify(data);
}

describe("invalid prompts are rejected with the messages of the Python runtime", () => {
  test.each(reference.bad_prompts)("$prompt", ({ prompt, message }) => {
    const encode = () => encodePrompts([prompt], [80, 100], [80, 100], manifest.prompt, manifest.mask.size);
    expect(encode).toThrow(SamEdgeError);
    expect(encode).toThrow(message);
  });

  test("an image without pixels, or with too few values", () => {
    const data = new Uint8Array(10);
    expect(() => resize({ data, width: 0, height: 4 }, manifest.input)).toThrow("0 by 4 pixels");
    expect(() => resize({ data, width: 2, height: 4 }, manifest.input)).toThrow("10 values; expected 24");
  });
});

describe("manifests", () => {
  test.each([
    ["not JSON", "{", "is not valid JSON"],
    ["not an object", "[]", "manifest should be object"],
    ["of a newer sam-edge", edited((data) => (data.schema_version = 2)), "upgrade sam-edge"],
    ["without a required key", edited((data) => delete data.mask), 'lacks "mask"'],
    ["of a wrong type", edited((data) => (data.input.size = [320, "a"])), "manifest.input.size[1]"],
    ["with an unknown key", edited((data) => (data.model.extra = 1)), 'unknown key "extra"'],
    [
      "naming a file outside the bundle",
      edited((data) => (data.variants[0].files[0].path = "../x")),
      "inside the bundle",
    ],
    ["naming a graph without a hash", edited((data) => (data.variants[0].encoder.path = "x")), "names x"],
    [
      "with only one decoder stage",
      edited((data) => delete data.variants[0].scorer),
      "only one of the decoder's stages",
    ],
    ["changed since the export", text.replace('"pad_value": 0.0', '"pad_value": 1.0'), "was changed"],
  ])("%s", async (_, content, message) => {
    await expect(readManifest(changed(content))).rejects.toThrow(message);
    await expect(readManifest(changed(content))).rejects.toBeInstanceOf(SamEdgeError);
  });

  test("a variant that is not in the bundle", async () => {
    const ids = manifest.variants.map(({ id }) => id).join(", ");
    await expect(load(good, ort, { variant: "onnx-fp8" })).rejects.toThrow(
      `no ONNX variant onnx-fp8; it has ${ids}`,
    );
  });
});

describe("model files", () => {
  test("truncated", async () => {
    const source = changed(text, (path, bytes) =>
      path.endsWith("decoder.onnx") ? bytes.slice(0, 1000) : bytes,
    );
    await expect(load(source, ort)).rejects.toThrow(/decoder\.onnx of bundle has 1000 bytes.* truncated/);
  });

  test("with one byte changed", async () => {
    const source = changed(text, (_, bytes) => {
      bytes[500] ^= 1;
      return bytes;
    });
    await expect(load(source, ort)).rejects.toThrow("sha256 differs");
  });

  test("a failed load can be tried again", async () => {
    let broken = true;
    const source = changed(text, (_, bytes) => (broken ? bytes.slice(1) : bytes));
    await expect(load(source, ort)).rejects.toThrow("truncated");
    broken = false;
    const sam = await load(source, ort);
    await sam.close();
  });
});

describe("servers", () => {
  const answer = (respond: () => Promise<Response>) => readManifest(httpSource("http://x/bundle", respond));

  test("that do not answer", async () => {
    await expect(answer(() => Promise.reject(new TypeError("fetch failed")))).rejects.toThrow(
      "http://x/bundle/manifest.json cannot be fetched (fetch failed); check that the server is running",
    );
  });

  test("that do not have the file", async () => {
    await expect(answer(async () => new Response("", { status: 404 }))).rejects.toThrow("answers 404");
  });

  test("that send an error message", async () => {
    const body = JSON.stringify({ error: "encoder.onnx is damaged" });
    await expect(answer(async () => new Response(body, { status: 500 }))).rejects.toThrow(
      "answers 500 to http://x/bundle/manifest.json (encoder.onnx is damaged)",
    );
  });
});

test("an embedding of another model is rejected", async () => {
  const sam = await load(good, ort);
  const embedding = await sam.encode(image(reference.images[0]));
  await expect(sam.predict({ ...embedding, model: "0" }, { points: [[1, 1]] })).rejects.toThrow(
    "another model",
  );
  await sam.close();
});
