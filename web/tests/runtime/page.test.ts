/** Tests of the page's modules that need no browser. */

import { describe, expect, test } from "vitest";
import { withCache } from "../../src/page/cache.ts";
import { describeCandidate, describeSelected } from "../../src/page/candidates.ts";
import { coalescingQueue } from "../../src/page/coalescing-queue.ts";
import { moveCursor } from "../../src/page/cursor.ts";
import { imageSize } from "../../src/page/image-file.ts";
import { type Bytes, type MaskRecord, sha256 } from "../../src/runtime/index.ts";

describe("while a decode runs, only the newest prompt is queued", () => {
  /** Returns a queue of jobs that finish when `next` is called. */
  function setup() {
    const ran: string[] = [];
    let finish = () => {};
    const submit = coalescingQueue<string>(
      (job) => {
        ran.push(job);
        return new Promise((resolve) => {
          finish = resolve;
        });
      },
      (job) => job.startsWith("click"),
    );
    const next = async () => {
      finish();
      await new Promise((resolve) => setTimeout(resolve));
    };
    return { ran, submit, next };
  }

  test("among pointer positions", async () => {
    const { ran, submit, next } = setup();
    for (const job of ["hover 1", "hover 2", "hover 3", "hover 4"]) void submit(job);
    await next();
    await next();
    expect(ran).toEqual(["hover 1", "hover 4"]);
  });

  test("and a click is not dropped for later pointer positions", async () => {
    const { ran, submit, next } = setup();
    for (const job of ["hover 1", "hover 2", "click 1", "hover 3", "click 2", "hover 4"]) void submit(job);
    await next();
    await next();
    expect(ran).toEqual(["hover 1", "click 2"]);
  });
});

describe("model files are cached by their hash", async () => {
  const bytes = new TextEncoder().encode("a model");
  const file = { path: "onnx/decoder.onnx", bytes: bytes.length, sha256: await sha256(bytes) };

  function setup(content: () => Bytes) {
    const kept = new Map<string, Response>();
    const cache = {
      match: async (key: string) => kept.get(key)?.clone(),
      put: async (key: string, response: Response) => kept.set(key, response),
      delete: async (key: string) => kept.delete(key),
    };
    let reads = 0;
    const source = () =>
      withCache(
        {
          name: "server",
          read: async () => {
            reads += 1;
            return content();
          },
        },
        { open: async () => cache } as unknown as CacheStorage,
      );
    return { kept, source, reads: () => reads };
  }

  test("and fetched once", async () => {
    const { source, reads } = setup(() => bytes);
    expect(await source().read(file.path, file)).toEqual(bytes);
    expect(await source().read(file.path, file)).toEqual(bytes);
    expect(reads()).toBe(1);
  });

  test("and fetched again if the cached file is damaged", async () => {
    const { source, kept, reads } = setup(() => bytes);
    await source().read(file.path, file);
    for (const key of kept.keys()) kept.set(key, new Response("a modem"));
    expect(await source().read(file.path, file)).toEqual(bytes);
    expect(reads()).toBe(2);
  });

  test("but not if they differ from the export", async () => {
    const { source, kept } = setup(() => new TextEncoder().encode("a mod"));
    await expect(source().read(file.path, file)).rejects.toThrow("truncated");
    expect(kept.size).toBe(0);
  });
});

describe("an image's size is read from the file's header", () => {
  // Headers of files that Pillow wrote, of 300 by 200 pixels.
  test.each([
    ["PNG", "89504e470d0a1a0a0000000d494844520000012c000000c80802000000"],
    ["GIF", "4749463837612c01c800810000"],
    ["BMP", "424d56bf02000000000036000000280000002c010000c80000000100180000000000"],
    ["JPEG", `ffd8ffe000104a46494600010100000100010000ffdb0043${"00".repeat(65)}ffc000110800c8012c03012200`],
    ["progressive JPEG", `ffd8ffdb0043${"00".repeat(65)}ffc200110800c8012c03012200`],
    ["WebP", "52494646ac0000005745425056503820a00000007010009d012a2c01c8003e6d369a"],
    ["lossless WebP", "524946462e000000574542505650384c210000002f2bc13100074020698bb7fd0a01"],
    ["WebP with more", "52494646d000000057454250565038580a000000080000002b0100c7000056503820"],
  ])("%s", (_, hexadecimal) => {
    expect(imageSize(Uint8Array.from(Buffer.from(hexadecimal, "hex")))).toEqual([300, 200]);
  });

  test.each(["", "ff", "ffd8", "ffd8ffe0", "89504e47", "52494646000000005745425056503820"])(
    "not from %s",
    (head) => {
      expect(imageSize(Uint8Array.from(Buffer.from(head, "hex")))).toBeNull();
    },
  );
});

describe("the keyboard cursor", () => {
  const image = { width: 300, height: 200 };

  test("starts in the middle and moves by 1 % of the longer side, with Shift by 6 %", () => {
    expect(moveCursor(null, image, [1, 0], false)).toEqual([153, 100]);
    expect(moveCursor([153, 100], image, [0, -1], true)).toEqual([153, 82]);
  });

  test("moves in an image of a few pixels, and stays inside it", () => {
    const small = { width: 4, height: 2 };
    expect(moveCursor([2, 1], small, [1, 0], false)).toEqual([3, 1]);
    expect(moveCursor([3, 1], small, [1, 1], true)).toEqual([3, 1]);
    expect(moveCursor([0, 0], small, [-1, -1], false)).toEqual([0, 0]);
  });
});

describe("the chosen mask is described", () => {
  test.each([
    [Uint8Array.of(1, 0, 0, 0), "Mask 2 of 3: score 0.91, 25 % of the picture."],
    [new Uint8Array(200).fill(1, 0, 5), "Mask 2 of 3: score 0.91, 2.5 % of the picture."],
  ])("candidate %#", (mask, text) => {
    expect(describeCandidate(1, [0.5, 0.914, 0.7], mask)).toBe(text);
  });

  test("in everything", () => {
    const record = { predicted_iou: 0.957, area: 1234 } as MaskRecord;
    const result = { records: [record], labels: new Uint16Array(), milliseconds: 1 };
    expect(describeSelected({ ...result, selected: 0 })).toBe("Mask 1: score 0.96, 1234 pixels.");
    expect(describeSelected({ ...result, selected: null })).toBe("");
    expect(describeSelected({ ...result, records: [], selected: null })).toMatch(/try more points/);
  });
});
