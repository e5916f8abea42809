/** Drives the page in Chromium. */

import { spawn } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { type Browser, type BrowserContextOptions, chromium, type Page } from "playwright-core";
import { inject } from "vitest";
import { serve } from "../../scripts/static-server.mjs";
import { bundle } from "../support.ts";

export const ROOT = fileURLToPath(new URL("../../../", import.meta.url));
export const PHOTOS = `${ROOT}models/photos/`;
export const PHOTO = `${PHOTOS}astronaut.jpg`;
/** Long timeout: decoding on a software GPU takes seconds, and ten times as long on a loaded machine. */
export const LONG_TIMEOUT = { timeout: 900_000 };

/** Chromium flags for WebGPU on its built-in software adapter. */
export const SWIFTSHADER_FLAGS = [
  "--enable-unsafe-webgpu",
  "--use-webgpu-adapter=swiftshader",
  "--enable-features=Vulkan",
  "--use-vulkan=swiftshader",
];

export function launch(args: string[] = []): Promise<Browser> {
  const executablePath = process.env.CHROMIUM ?? "/usr/bin/chromium";
  if (!existsSync(executablePath))
    throw new Error(`${executablePath} is missing; set CHROMIUM to a Chromium executable`);
  return chromium.launch({
    ...LONG_TIMEOUT,
    executablePath,
    args: ["--no-sandbox", "--headless=new", ...args],
  });
}

interface ServeOptions {
  encode?: "page" | "server" | "both";
  variants?: string[];
  intercept?: (
    path: string,
    body: Buffer,
  ) => { status?: number; type?: string; body?: string | Uint8Array } | undefined;
  isolate?: boolean;
  port?: number;
}

/** Serves the built page, the bundle and the samples at the paths of `sam-edge serve`. */
export function servePage({ encode = "page", variants, intercept, ...options }: ServeOptions = {}) {
  const manifest = JSON.parse(readFileSync(`${bundle}/manifest.json`, "utf8"));
  // Variants for browsers come first.
  const ids: string[] = manifest.variants.map(({ id }: { id: string }) => id);
  ids.sort((a, b) => Number(b.endsWith("-web")) - Number(a.endsWith("-web")));
  const names = readdirSync(PHOTOS).filter((name) => name.endsWith(".jpg"));
  const config = {
    encode,
    variants: variants ?? ids,
    max_body_bytes: 32_000_000,
    max_image_pixels: 50_000_000,
    samples: names.map((name) => ({ name: name.replace(".jpg", ""), path: `samples/${name}` })),
    model_id: manifest.model.checkpoint.sha256,
  };
  return serve(
    { "/bundle/": bundle, "/samples/": PHOTOS },
    {
      ...options,
      intercept: (path, body) =>
        path === "/config.json" ? { body: JSON.stringify(config) } : intercept?.(path, body),
    },
  );
}

/** Starts `sam-edge serve` with the built page. */
export async function startSamEdgeServe(encode: string): Promise<{ url: string; close(): void }> {
  const args = ["-m", "sam_edge", "serve", bundle, "--page", "web/dist", "--port", "0", "--encode", encode];
  const child = spawn(inject("python"), args, { cwd: ROOT, stdio: ["ignore", "pipe", "inherit"] });
  const url = await new Promise<string>((resolve, reject) => {
    child.stdout.once("data", (line: Buffer) => resolve(line.toString().trim()));
    child.once("exit", (code) => reject(new Error(`sam-edge serve ended with ${code}`)));
  });
  return { url, close: () => child.kill("SIGINT") };
}

/** A page that a test uses as a user would. */
export class Visit {
  readonly page: Page;
  /** URLs that the page requested. */
  readonly requests: string[] = [];
  /** Errors in the page and on its console. */
  readonly errors: string[] = [];

  constructor(page: Page) {
    this.page = page;
    page.on("request", (request) => this.requests.push(request.url()));
    page.on("pageerror", (error) => this.errors.push(String(error)));
    page.on("console", (message) => {
      if (message.type() === "error") this.errors.push(message.text());
    });
  }

  static async start(browser: Browser, url: string, options: BrowserContextOptions = {}): Promise<Visit> {
    const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, ...options });
    context.setDefaultTimeout(LONG_TIMEOUT.timeout);
    const visit = new Visit(await context.newPage());
    await visit.page.goto(url);
    return visit;
  }

  /** Waits until the page is in one of these states. */
  async waitForState(...states: string[]): Promise<void> {
    await this.page.waitForFunction(
      (expected) => expected.includes(document.documentElement.dataset.state ?? ""),
      states,
      LONG_TIMEOUT,
    );
  }

  async choose(file: string | { name: string; mimeType: string; buffer: Buffer }): Promise<void> {
    await this.page.setInputFiles("#file", file);
  }

  /** Chooses an image file and waits until it is encoded. */
  async open(file = PHOTO): Promise<void> {
    await this.waitForState("empty", "ready");
    await this.choose(file);
    await this.encoded();
  }

  async encoded(): Promise<void> {
    await this.page.waitForSelector("#everything:enabled", LONG_TIMEOUT);
    await this.waitForState("ready");
  }

  /** Returns the screen position of a pixel of an image of `width` by `height`. */
  async at([x, y]: readonly [number, number], width = 512, height = 512): Promise<[number, number]> {
    const frame = await this.page.locator("#view").boundingBox();
    if (frame === null) throw new Error("no picture is shown");
    return [frame.x + ((x + 0.5) / width) * frame.width, frame.y + ((y + 0.5) / height) * frame.height];
  }

  async click(pixel: readonly [number, number], button: "left" | "right" = "left"): Promise<void> {
    await this.page.mouse.click(...(await this.at(pixel)), { button });
    await this.decoded();
  }

  /** Waits for the candidates of the newest prompt. */
  async decoded(): Promise<void> {
    await this.waitForState("ready");
    await this.page.waitForSelector("#candidates canvas", LONG_TIMEOUT);
  }

  async download(button: string): Promise<{ name: string; content: Buffer }> {
    const [download] = await Promise.all([this.page.waitForEvent("download"), this.page.click(button)]);
    return { name: download.suggestedFilename(), content: readFileSync(await download.path()) };
  }

  /** Decodes a PNG; returns its red and alpha channels. */
  async png(content: Buffer): Promise<{ width: number; height: number; red: Uint8Array; alpha: Uint8Array }> {
    const { width, height, data } = await this.page.evaluate(async (base64) => {
      const binary = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
      const bitmap = await createImageBitmap(new Blob([binary]), { premultiplyAlpha: "none" });
      const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
      const context = canvas.getContext("2d") as OffscreenCanvasRenderingContext2D;
      context.drawImage(bitmap, 0, 0);
      const pixels = context.getImageData(0, 0, bitmap.width, bitmap.height).data;
      let text = "";
      for (let i = 0; i < pixels.length; i += 4) text += String.fromCharCode(pixels[i], pixels[i + 3]);
      return { width: bitmap.width, height: bitmap.height, data: btoa(text) };
    }, content.toString("base64"));
    const bytes = Buffer.from(data, "base64");
    const every = (start: number) =>
      Uint8Array.from({ length: width * height }, (_, i) => bytes[2 * i + start]);
    return { width, height, red: every(0), alpha: every(1) };
  }

  /** Downloads the shown mask at the image's size: 1 inside. */
  async mask(): Promise<Uint8Array> {
    const { content } = await this.download("#save-mask");
    return (await this.png(content)).red.map((value) => (value > 127 ? 1 : 0));
  }

  async alert(): Promise<string> {
    await this.page.waitForSelector("#alert:not([hidden])", LONG_TIMEOUT);
    return this.page.locator("#alert-text").innerText();
  }

  status(): Promise<string> {
    return this.page.locator("footer").innerText();
  }

  close(): Promise<void> {
    return this.page.context().close();
  }
}
