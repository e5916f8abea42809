import { existsSync, readFileSync } from "node:fs";
import type { Browser } from "playwright-core";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { bits, bytes, iou, maskOf, type ReferenceArrays, reference } from "../support.ts";
import {
  LONG_TIMEOUT,
  launch,
  PHOTO,
  PHOTOS,
  ROOT,
  SWIFTSHADER_FLAGS,
  servePage,
  startSamEdgeServe,
  Visit,
} from "./browser.ts";

const FP32 = "onnx-fp32";
const { photo } = reference.variants[FP32];
const PIXELS = photo.width * photo.height;
const pointMask = bits(photo.point_mask, PIXELS);
const boxMask = bits(photo.box_mask, PIXELS);

let browser: Browser;
let server: Awaited<ReturnType<typeof servePage>>;
let visit: Visit;

beforeAll(async () => {
  browser = await launch();
  server = await servePage();
});

afterAll(async () => {
  await browser.close();
  await server.close();
});

afterEach(() => visit.close());

describe("a photograph", () => {
  test("clicked on gives the Python runtime's mask, three candidates with scores, and downloads", async () => {
    visit = await Visit.start(browser, server.url);
    await visit.open();
    await visit.click(photo.point);
    expect(iou(await visit.mask(), pointMask)).toBeGreaterThanOrEqual(0.999);
    expect(await visit.page.locator("#candidates button").count()).toBe(3);
    expect(await visit.page.locator("#result").innerText()).toMatch(
      /Mask \d of 3: score 0\.\d\d, .*of the picture/,
    );

    const cut = await visit.download("#save-cut");
    expect(cut.name).toBe("astronaut-cut-out.png");
    const { width, height, alpha } = await visit.png(cut.content);
    const area = pointMask.reduce((sum, pixel) => sum + pixel, 0);
    const opaque = alpha.filter((value) => value === 255).length;
    expect(Math.abs(opaque - area)).toBeLessThan(area / 500);
    expect(width * height).toBeLessThan(PIXELS / 4);

    const { annotations, images } = JSON.parse((await visit.download("#save-coco")).content.toString());
    expect(images).toEqual([{ id: 1, file_name: "astronaut.jpg", width: photo.width, height: photo.height }]);
    expect(iou(maskOf(annotations[0].segmentation), pointMask)).toBeGreaterThanOrEqual(0.999);
    expect(visit.errors).toEqual([]);
  });

  test("a box that is dragged", async () => {
    visit = await Visit.start(browser, server.url);
    await visit.open();
    const [x0, y0, x1, y1] = photo.box;
    await visit.page.mouse.move(...(await visit.at([x0, y0])));
    await visit.page.mouse.down();
    await visit.page.mouse.move(...(await visit.at([300, 300])));
    await visit.page.mouse.move(...(await visit.at([x1 - 1, y1 - 1])));
    await visit.page.mouse.up();
    await visit.decoded();
    expect(iou(await visit.mask(), boxMask)).toBeGreaterThanOrEqual(0.999);
  });

  test("by keyboard alone: cursor, add, remove, candidates, undo, reset", async () => {
    visit = await Visit.start(browser, server.url);
    await visit.open();
    const { keyboard } = visit.page;
    // The cursor starts in the middle and moves 5 pixels per key press.
    for (let i = 0; i < (256 - photo.point[0]) / 5; i++) await keyboard.press("ArrowLeft");
    for (let i = 0; i < (256 - photo.point[1]) / 5; i++) await keyboard.press("ArrowUp");
    await keyboard.press("Enter");
    await visit.decoded();
    const first = await visit.mask();
    expect(iou(first, pointMask)).toBeGreaterThanOrEqual(0.999);

    await visit.page.locator("#view").focus();
    await keyboard.press("Shift+ArrowDown");
    await keyboard.press("Delete");
    await visit.decoded();
    const second = await visit.mask();
    expect(iou(second, first)).toBeLessThan(0.999);

    await visit.page.locator("#view").focus();
    await keyboard.press("z");
    await visit.decoded();
    expect(iou(await visit.mask(), first)).toBe(1);
    await visit.page.locator("#view").focus();
    await keyboard.press("1");
    expect(await visit.page.locator("#candidates button").first().getAttribute("aria-pressed")).toBe("true");
    await keyboard.press("Escape");
    expect(await visit.page.locator("#candidates canvas").count()).toBe(0);
  });

  test("the right button removes", async () => {
    visit = await Visit.start(browser, server.url);
    await visit.open();
    await visit.click(photo.point);
    const before = await visit.mask();
    await visit.click([225, 60], "right");
    const after = await visit.mask();
    expect(before[60 * photo.width + 225]).toBe(1);
    expect(iou(after, before)).toBeLessThan(0.99);
  });

  test("a preview follows the pointer, and disappears when it leaves", async () => {
    visit = await Visit.start(browser, server.url);
    await visit.open();
    const sumOfPixels = () =>
      visit.page.evaluate(() => {
        const canvas = document.querySelector("#view") as HTMLCanvasElement;
        const context = canvas.getContext("2d") as CanvasRenderingContext2D;
        return context
          .getImageData(0, 0, canvas.width, canvas.height)
          .data.reduce((sum, value) => sum + value);
      });
    const before = await sumOfPixels();
    await visit.page.mouse.move(...(await visit.at(photo.point)));
    // Scaling the image again may round a pixel differently.
    const change = async () => Math.abs((await sumOfPixels()) - before) / before;
    await expect.poll(change, LONG_TIMEOUT).toBeGreaterThan(1e-3);
    await visit.page.mouse.move(2, 2);
    await expect.poll(change, LONG_TIMEOUT).toBeLessThan(1e-6);
    expect(await visit.page.locator("#candidates canvas").count()).toBe(0);
  });

  test("everything, as Python finds it", async () => {
    visit = await Visit.start(browser, server.url);
    await visit.open();
    await visit.page.click("#everything");
    await visit.waitForState("everything");
    const { annotations } = JSON.parse((await visit.download("#save-coco")).content.toString());
    expect(annotations.length).toBe(photo.everything.length);
    const masks = annotations.map((one: { segmentation: Parameters<typeof maskOf>[0] }) =>
      maskOf(one.segmentation),
    );
    for (const record of photo.everything) {
      const best = Math.max(...masks.map((mask: Uint8Array) => iou(mask, maskOf(record.segmentation))));
      expect(best).toBeGreaterThanOrEqual(0.99);
    }
    await visit.page.mouse.click(...(await visit.at(photo.point)));
    expect((await visit.mask())[photo.point[1] * photo.width + photo.point[0]]).toBe(1);
    await visit.page.click("#everything");
    await visit.click(photo.point);
    expect(iou(await visit.mask(), pointMask)).toBeGreaterThanOrEqual(0.999);
  });

  test.each(["drop", "paste"])("given by %s", async (how) => {
    visit = await Visit.start(browser, server.url);
    await visit.waitForState("empty");
    const content = readFileSync(PHOTO).toString("base64");
    await visit.page.evaluate(
      ([kind, base64]) => {
        const binary = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
        const data = new DataTransfer();
        data.items.add(new File([binary], "photo.jpg", { type: "image/jpeg" }));
        const options = { bubbles: true, cancelable: true };
        document.body.dispatchEvent(
          kind === "drop"
            ? new DragEvent("drop", { ...options, dataTransfer: data })
            : new ClipboardEvent("paste", { ...options, clipboardData: data }),
        );
      },
      [how, content],
    );
    await visit.encoded();
    await visit.click(photo.point);
    expect(iou(await visit.mask(), pointMask)).toBeGreaterThanOrEqual(0.999);
  });

  test("a sample, on a phone, by touch", async () => {
    visit = await Visit.start(browser, server.url, {
      viewport: { width: 390, height: 844 },
      deviceScaleFactor: 2,
      hasTouch: true,
      isMobile: true,
    });
    await visit.waitForState("empty");
    await visit.page.tap('#empty-samples [aria-label="Sample: astronaut"]');
    await visit.encoded();
    await visit.page.touchscreen.tap(...(await visit.at(photo.point)));
    await visit.decoded();
    // A tap is rounded to CSS pixels.
    expect(iou(await visit.mask(), pointMask)).toBeGreaterThanOrEqual(0.95);
    const sideways = () => document.documentElement.scrollWidth - document.documentElement.clientWidth;
    expect(await visit.page.evaluate(sideways)).toBeLessThanOrEqual(0);
  });
});

describe("where it runs", () => {
  test("models are fetched once, and nothing from elsewhere", async () => {
    visit = await Visit.start(browser, server.url);
    await visit.open();
    await visit.click(photo.point);
    const models = () => visit.requests.filter((url) => url.includes(".onnx"));
    const fetched = models();
    // The encoder, the decoder's two stages, and the decoder's file with their weights.
    expect(fetched.length).toBe(4);
    expect(new Set(fetched).size).toBe(4);
    await visit.page.reload();
    await visit.open();
    await visit.click(photo.point);
    expect(models()).toEqual(fetched);
    expect(visit.requests.filter((url) => !/^(blob:)?http:\/\/127\.0\.0\.1/.test(url))).toEqual([]);
  });

  test("one thread where the page is not isolated, and the same mask", async () => {
    const notIsolated = await servePage({ isolate: false });
    try {
      visit = await Visit.start(browser, notIsolated.url);
      await visit.open();
      await visit.click(photo.point);
      expect(await visit.status()).toMatch(/WebAssembly\s+threads 1/);
      expect(iou(await visit.mask(), pointMask)).toBeGreaterThanOrEqual(0.999);
    } finally {
      await notIsolated.close();
    }
  });

  test("WebGPU, on Chromium's software adapter, gives the same masks", async () => {
    const withGpu = await launch(SWIFTSHADER_FLAGS);
    try {
      visit = await Visit.start(withGpu, `${server.url}?backend=webgpu`);
      await visit.open();
      await visit.click(photo.point);
      expect(await visit.status()).toContain("WebGPU");
      expect(iou(await visit.mask(), pointMask)).toBeGreaterThanOrEqual(0.999);
      await visit.close();
    } finally {
      await withGpu.close();
    }
  });

  test("INT8", async () => {
    visit = await Visit.start(browser, `${server.url}?variant=onnx-int8`);
    await visit.open();
    await visit.click(photo.point);
    const { gate, photo: int8 } = reference.variants["onnx-int8"];
    expect(iou(await visit.mask(), bits(int8.point_mask, PIXELS))).toBeGreaterThanOrEqual(gate.mean_iou);
  });
});

describe("a server that encodes", () => {
  const intercept = (path: string) =>
    path === "/embeddings"
      ? { type: "application/octet-stream", body: safetensors(photo.embedding) }
      : undefined;

  test("gives the same mask; the page survives its shutdown and can retry", async () => {
    const testServer = await servePage({ encode: "server", intercept });
    let restarted: typeof testServer | undefined;
    try {
      visit = await Visit.start(browser, testServer.url);
      await visit.open();
      await visit.click(photo.point);
      expect(iou(await visit.mask(), pointMask)).toBeGreaterThanOrEqual(0.999);
      expect(visit.requests.some((url) => url.includes("encoder.onnx"))).toBe(false);
      await testServer.close();

      await visit.click([225, 60], "right");
      await visit.choose(PHOTO);
      expect(await visit.alert()).toMatch(/server does not answer.*sam-edge serve/);

      restarted = await servePage({ encode: "server", intercept, port: testServer.port });
      await visit.page.click("#alert-retry");
      await visit.encoded();
      await visit.click(photo.point);
      expect(iou(await visit.mask(), pointMask)).toBeGreaterThanOrEqual(0.999);
    } finally {
      await restarted?.close();
    }
  });

  test("encodes once an image that was opened while the model was loading", async () => {
    const testServer = await servePage({ encode: "server", intercept });
    try {
      visit = await Visit.start(browser, testServer.url);
      await visit.waitForState("loading", "empty");
      await visit.choose(PHOTO);
      await visit.encoded();
      await visit.click(photo.point);
      expect(visit.requests.filter((url) => url.endsWith("/embeddings")).length).toBe(1);
    } finally {
      await testServer.close();
    }
  });

  test("and is busy: its message is shown, and the request can be retried", async () => {
    let busy = true;
    const testServer = await servePage({
      encode: "server",
      intercept: (path) =>
        path === "/embeddings" && busy
          ? { status: 503, body: '{"error": "Eight pictures wait."}' }
          : intercept(path),
    });
    try {
      visit = await Visit.start(browser, testServer.url);
      await visit.waitForState("empty");
      await visit.choose(PHOTO);
      expect(await visit.alert()).toContain("Eight pictures wait. Try again in a moment.");
      busy = false;
      await visit.page.click("#alert-retry");
      await visit.encoded();
    } finally {
      await testServer.close();
    }
  });
});

describe.runIf(existsSync(`${ROOT}sam_edge/serve`))("`sam-edge serve`", () => {
  test.each([
    ["server", /encoded by the server/],
    ["page", /encoded/],
  ])("and its page, encoded by the %s", async (encode, status) => {
    const { url, close } = await startSamEdgeServe(encode);
    try {
      visit = await Visit.start(browser, url);
      await visit.open();
      await visit.click(photo.point);
      expect(await visit.status()).toMatch(status);
      expect(await visit.status()).toMatch(/threads [2-9]/);
      expect(iou(await visit.mask(), pointMask)).toBeGreaterThanOrEqual(0.999);
      await visit.choose({ name: "text.jpg", mimeType: "image/jpeg", buffer: Buffer.from("not a picture") });
      expect(await visit.alert()).toContain("cannot be read as a picture");
      expect(visit.errors).toEqual([]);
    } finally {
      close();
    }
  });
});

describe("invalid input is reported, and the page stays usable", () => {
  test.each([
    ["a file without bytes", "empty.jpg", Buffer.alloc(0), /empty\.jpg is empty \(0 bytes\)/],
    [
      "text with an image's file name",
      "text.jpg",
      Buffer.from("not a picture"),
      /text\.jpg cannot be read as a picture/,
    ],
    ["200 megapixels", "large.png", pngHead(20_000, 10_000), /20000 × 10000 are 200 megapixels.*limit is 50/],
    ["a truncated image", "cut.png", pngHead(20, 10), /cut\.png cannot be read as a picture/],
  ])("%s", async (_, name, buffer, message) => {
    visit = await Visit.start(browser, server.url);
    await visit.open();
    await visit.choose({ name, mimeType: "image/jpeg", buffer });
    expect(await visit.alert()).toMatch(message);
    await visit.click(photo.point);
    expect(iou(await visit.mask(), pointMask)).toBeGreaterThanOrEqual(0.999);
  });

  test("a truncated model", async () => {
    let truncated = true;
    const testServer = await servePage({
      intercept: (path) =>
        truncated && path.includes("/onnx-fp32") && path.endsWith("/decoder.onnx")
          ? { type: "application/octet-stream", body: "short" }
          : undefined,
    });
    try {
      visit = await Visit.start(browser, testServer.url);
      expect(await visit.alert()).toMatch(
        /decoder\.onnx.* has 5 bytes, and \d+ were exported: it is truncated/,
      );
      truncated = false;
      await visit.page.click("#alert-retry");
      await visit.open();
      await visit.click(photo.point);
      expect(iou(await visit.mask(), pointMask)).toBeGreaterThanOrEqual(0.999);
    } finally {
      await testServer.close();
    }
  });
});

// SAM_EDGE_SCREENSHOTS=../docs npm run e2e
const screenshots = process.env.SAM_EDGE_SCREENSHOTS;
describe.runIf(screenshots)("screenshots for the documentation", () => {
  const phone = {
    viewport: { width: 390, height: 844 },
    deviceScaleFactor: 2,
    hasTouch: true,
    isMobile: true,
  };
  test.each([
    ["page.png", { colorScheme: "light" }],
    ["page-phone.png", { colorScheme: "light", ...phone }],
  ] as const)("%s", async (name, options) => {
    visit = await Visit.start(browser, server.url, options);
    await visit.open(`${PHOTOS}astronaut.jpg`);
    await visit.click([226, 121]);
    await visit.page.waitForTimeout(300);
    await visit.page.screenshot({ path: `${screenshots}/${name}` });
  });
});

/** Returns the header of a PNG file with a size, without image data. */
function pngHead(width: number, height: number): Buffer {
  const head = Buffer.from("89504e470d0a1a0a0000000d49484452", "hex");
  const size = Buffer.alloc(8);
  size.writeUInt32BE(width);
  size.writeUInt32BE(height, 4);
  return Buffer.concat([head, size, Buffer.from("0802000000", "hex"), Buffer.alloc(16)]);
}

/** Encodes a reference embedding as `sam-edge serve` does. */
function safetensors(arrays: ReferenceArrays): Uint8Array {
  let at = 0;
  const parts: Uint8Array[] = [];
  const header: Record<string, unknown> = {
    __metadata__: {
      original_height: String(photo.height),
      original_width: String(photo.width),
      model_id: reference.model_id,
    },
  };
  for (const [name, { dims, data }] of Object.entries(arrays)) {
    const part = bytes(data);
    header[name] = { dtype: "F32", shape: dims, data_offsets: [at, at + part.length] };
    parts.push(part);
    at += part.length;
  }
  const text = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  return Buffer.concat([length, text, ...parts]);
}
