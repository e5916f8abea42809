import { reason, SamEdgeError } from "./errors.ts";
import type { File } from "./manifest.types.ts";
import { sha256 } from "./sha256.ts";

export type Bytes = Uint8Array<ArrayBuffer>;

/** Where a bundle's files come from: a folder, a server, a cache in front of one. */
export interface Source {
  /** The name to call it by in messages. */
  readonly name: string;
  /** The bytes of a file; `file` says which are expected where the manifest does. */
  read(path: string, file?: File): Promise<Bytes>;
}

/**
 * The bytes of `file`, which are those that were exported.
 *
 * Throws a `SamEdgeError`: a truncated or another file.
 */
export async function readChecked(source: Source, file: File): Promise<Bytes> {
  const bytes = await source.read(file.path, file);
  await check(source.name, file, bytes);
  return bytes;
}

/** Throws a `SamEdgeError` unless `bytes` are those of `file`. */
export async function check(name: string, file: File, bytes: Bytes): Promise<void> {
  if (bytes.byteLength !== file.bytes) {
    throw new SamEdgeError(
      "integrity",
      `${file.path} of ${name} has ${bytes.byteLength} bytes, and ${file.bytes} were exported: ` +
        `it is ${bytes.byteLength < file.bytes ? "truncated" : "another file"}; export or copy the bundle again`,
    );
  }
  if ((await sha256(bytes)) !== file.sha256) {
    throw new SamEdgeError(
      "integrity",
      `${file.path} of ${name} is not the file that was exported (its sha256 differs); export or copy the ` +
        "bundle again",
    );
  }
}

/** What `sam-edge serve` says of a request that failed; "" of other servers. */
async function errorOf(response: Response): Promise<string> {
  try {
    const { error } = await response.json();
    return typeof error === "string" ? error : "";
  } catch {
    return "";
  }
}

/** A bundle on a server: `base` is the URL of its folder. */
export function httpSource(base: string | URL, fetcher: typeof fetch = (...args) => fetch(...args)): Source {
  const root = String(base).replace(/\/?$/, "/");
  return {
    name: root,
    async read(path, file) {
      const query = file === undefined ? "" : `?sha256=${file.sha256}`;
      const url = `${root}${path.split("/").map(encodeURIComponent).join("/")}${query}`;
      let response: Response;
      try {
        response = await fetcher(url);
      } catch (error) {
        throw new SamEdgeError(
          "network",
          `${url} cannot be fetched (${reason(error)}); check that the server is running, then try again`,
          error,
        );
      }
      if (!response.ok) {
        const said = await errorOf(response);
        throw new SamEdgeError(
          "network",
          `the server answers ${response.status} to ${url}${said && ` (${said})`}; check that it serves a whole bundle`,
        );
      }
      try {
        return new Uint8Array(await response.arrayBuffer());
      } catch (error) {
        throw new SamEdgeError(
          "network",
          `the connection broke while ${url} was fetched (${reason(error)}); try again`,
          error,
        );
      }
    },
  };
}
