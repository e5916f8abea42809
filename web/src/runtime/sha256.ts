import { sha256 as sha256InJavaScript } from "@noble/hashes/sha2.js";

/**
 * Returns the SHA-256 of `bytes` in hexadecimal.
 *
 * Pages outside a secure context (plain HTTP from another host) have no `crypto.subtle`; a slower JavaScript
 * implementation is used there.
 */
export async function sha256(bytes: Uint8Array<ArrayBuffer>): Promise<string> {
  const subtle = globalThis.crypto?.subtle;
  const digest = subtle ? new Uint8Array(await subtle.digest("SHA-256", bytes)) : sha256InJavaScript(bytes);
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
