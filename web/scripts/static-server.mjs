/** A minimal server of the page and a bundle, for tests and benchmarks; users run `sam-edge serve`. */

import { createReadStream, statSync } from "node:fs";
import { createServer } from "node:http";
import { extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";

const DIST = fileURLToPath(new URL("../dist/", import.meta.url));
const TYPES = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript",
  ".mjs": "text/javascript",
  ".css": "text/css",
  ".json": "application/json",
  ".svg": "image/svg+xml",
  ".wasm": "application/wasm",
  ".jpg": "image/jpeg",
};
const POLICY =
  "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self' blob:; style-src 'self'; " +
  "img-src 'self' blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/**
 * @typedef {{ status?: number, type?: string, body?: string | Uint8Array }} Answer
 * @typedef {(path: string, body: Buffer) => Answer | undefined} Intercept
 */

/**
 * Serves folders by URL path prefix; "/" is the built page.
 *
 * @param {Record<string, string>} folders
 * @param {{ intercept?: Intercept, isolate?: boolean, policy?: boolean, port?: number }} [options]
 *   `intercept` may answer a request first; `isolate`: whether pages are cross-origin isolated, as wasm
 *   threads require; `policy`: whether to send the Content Security Policy of `sam-edge serve`.
 * @returns {Promise<{ url: string, port: number, close: () => Promise<void> }>}
 */
export async function serve(folders, { intercept, isolate = true, policy = true, port = 0 } = {}) {
  const roots = Object.entries({ "/": DIST, ...folders }).sort((a, b) => b[0].length - a[0].length);
  const server = createServer(async (request, response) => {
    const path = decodeURIComponent(new URL(request.url ?? "/", "http://x").pathname);
    if (isolate) {
      response.setHeader("Cross-Origin-Opener-Policy", "same-origin");
      response.setHeader("Cross-Origin-Embedder-Policy", "require-corp");
    }
    response.setHeader("Cross-Origin-Resource-Policy", "same-origin");
    if (policy) response.setHeader("Content-Security-Policy", POLICY);
    response.setHeader("X-Content-Type-Options", "nosniff");
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    const answer = intercept?.(path, Buffer.concat(chunks));
    if (answer !== undefined) {
      response.setHeader("Content-Type", answer.type ?? "application/json");
      response.writeHead(answer.status ?? 200).end(answer.body);
      return;
    }
    const [prefix, folder] = roots.find(([start]) => path.startsWith(start)) ?? roots[0];
    const file = join(folder, normalize(`/${path.slice(prefix.length) || "index.html"}`));
    try {
      if (!statSync(file).isFile()) throw new Error("no file");
    } catch {
      response.writeHead(404).end();
      return;
    }
    const types = /** @type {Record<string, string>} */ (TYPES);
    response.setHeader("Content-Type", types[extname(file)] ?? "application/octet-stream");
    createReadStream(file).pipe(response);
  });
  await new Promise((resolve) => server.listen(port, "127.0.0.1", () => resolve(undefined)));
  const address = /** @type {import("node:net").AddressInfo} */ (server.address());
  return {
    port: address.port,
    url: `http://127.0.0.1:${address.port}/`,
    close: () =>
      new Promise((resolve) => {
        server.closeAllConnections();
        server.close(() => resolve());
      }),
  };
}
