import { sha256 as inScript } from "@noble/hashes/sha2.js";

/**
 * The SHA-256 of `bytes` in hexadecimal. A page that comes over plain HTTP from another machine has no
 * `crypto.subtle`; there it is computed in script, more slowly.
 */
export async function sha256(bytes: Uint8Array<ArrayBuffer>): Promise<string> {
  const subtle = globalThis.crypto?.subtle;
  const digest = subtle ? new Uint8Array(await subtle.digest("SHA-256", bytes)) : inScript(bytes);
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
