/** HTTP requests to the server of the page. */

import { type Bytes, errorMessage, SamEdgeError } from "../runtime/index.ts";
import type { Limits } from "./image-file.ts";

/** config.json of the server. */
export interface Config extends Limits {
  /** Where images can be encoded. */
  readonly encode: "server" | "page" | "both";
  /** Ids of the variants that the page may run. */
  readonly variants: string[];
  readonly samples: { readonly name: string; readonly path: string }[];
  readonly model_id: string;
}

/** Returns the URL of a path on the server of the page. */
export function serverUrl(path: string): URL {
  return new URL(path, document.baseURI);
}

/** Fetches a path. Throws a `SamEdgeError` with the server's own message if it sends one. */
async function request(path: string, init?: RequestInit): Promise<Response> {
  const url = serverUrl(path);
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
  const serverMessage = await response
    .json()
    .then(({ error }: { error?: unknown }) => (typeof error === "string" ? error : undefined))
    .catch(() => undefined);
  const retry = response.status === 503 ? " Try again in a moment." : "";
  throw new SamEdgeError(
    "network",
    `${serverMessage ?? `The server answers ${response.status} to ${url.pathname}.`}${retry}`,
  );
}

/** Reads config.json. Throws a `SamEdgeError` if the server does not answer or has no valid file. */
export async function readConfig(): Promise<Config> {
  const response = await request("config.json");
  try {
    return await response.json();
  } catch (error) {
    throw new SamEdgeError("network", `config.json cannot be read (${errorMessage(error)})`, error);
  }
}

/** Fetches a sample image. */
export async function readSample(path: string): Promise<Blob> {
  return (await request(path)).blob();
}

/** Encodes an image on the server; returns the embedding as safetensors. Throws a `SamEdgeError`. */
export async function encodeOnServer(image: Blob, limits: Limits): Promise<Bytes> {
  if (image.size > limits.max_body_bytes)
    throw new SamEdgeError(
      "image",
      `The file has ${image.size} bytes, and the server accepts ${limits.max_body_bytes}; make it smaller first.`,
    );
  const headers = { "Content-Type": image.type || "application/octet-stream" };
  const response = await request("embeddings", { method: "POST", body: image, headers });
  try {
    return new Uint8Array(await response.arrayBuffer());
  } catch (error) {
    throw new SamEdgeError("network", "The connection to the server broke. Try again.", error);
  }
}
