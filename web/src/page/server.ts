/** What the page asks of its server. */

import { type Bytes, reason, SamEdgeError } from "../runtime/index.ts";
import type { Limits } from "./picture.ts";

export interface Config extends Limits {
  /** Where pictures can be encoded. */
  readonly encode: "server" | "page" | "both";
  /** Ids of the variants that the page may run. */
  readonly variants: string[];
  readonly samples: { readonly name: string; readonly path: string }[];
  readonly model_id: string;
}

async function ask(url: URL, init?: RequestInit): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(url, init);
  } catch (error) {
    throw new SamEdgeError(
      "network",
      "The server does not answer. Start it again with `sam-edge serve`, then try again.",
      error,
    );
  }
  if (response.ok) return response;
  const said = await response
    .json()
    .then(({ error }: { error?: unknown }) => (typeof error === "string" ? error : undefined))
    .catch(() => undefined);
  const retry = response.status === 503 ? " Try again in a moment." : "";
  throw new SamEdgeError(
    "network",
    `${said ?? `The server answers ${response.status} to ${url.pathname}.`}${retry}`,
  );
}

/** Throws a `SamEdgeError`: no server, or no such file. */
export async function readConfig(base: URL): Promise<Config> {
  const response = await ask(new URL("config.json", base));
  try {
    return await response.json();
  } catch (error) {
    throw new SamEdgeError("network", `config.json cannot be read (${reason(error)})`, error);
  }
}

export async function readSample(base: URL, path: string): Promise<Blob> {
  return (await ask(new URL(path, base))).blob();
}

/** A picture's embedding, as safetensors. Throws a `SamEdgeError` with the server's own words. */
export async function encodeOnServer(base: URL, picture: Blob, limits: Limits): Promise<Bytes> {
  if (picture.size > limits.max_body_bytes)
    throw new SamEdgeError(
      "image",
      `The file has ${picture.size} bytes, and the server takes ${limits.max_body_bytes}; make it smaller first.`,
    );
  const headers = { "Content-Type": picture.type || "application/octet-stream" };
  const response = await ask(new URL("embeddings", base), { method: "POST", body: picture, headers });
  try {
    return new Uint8Array(await response.arrayBuffer());
  } catch (error) {
    throw new SamEdgeError("network", "The connection to the server broke. Try again.", error);
  }
}
