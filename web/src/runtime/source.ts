import { errorMessage, SamEdgeError } from "./errors.ts";
import type { File } from "./manifest.types.ts";
import { sha256 } from "./sha256.ts";

export type Bytes = Uint8Array<ArrayBuffer>;

/** Reads the files of a bundle: from a folder or a server, possibly through a cache. */
export interface Source {
  /** Name used in error messages. */
  readonly name: string;
  /** Reads a file; `file` is its entry in the manifest, if it has one. */
  read(path: string, file?: File): Promise<Bytes>;
}

/**
 * Reads `file` and verifies its size and hash.
 *
 * Throws a `SamEdgeError` if it is truncated or differs from the exported file.
 */
export async function readVerified(source: Source, file: File): Promise<Bytes> {
  const bytes = await source.read(file.path, file);
  await verifyFile(source.name, file, bytes);
  return bytes;
}

/** Verifies size and hash of a file's bytes. Throws a `SamEdgeError` if they differ from the manifest's. */
export async function verifyFile(name: string, file: File, bytes: Bytes): Promise<void> {
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

/** Returns the error message in a failed response of `sam-edge serve`; "" for other servers. */
async function serverErrorMessage(response: Response): Promise<string> {
  try {
    const { error } = await response.json();
    return typeof error === "string" ? error : "";
  } catch {
    return "";
  }
}

/** Returns a source that fetches a bundle over HTTP; `base` is the URL of its folder. */
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
          `${url} cannot be fetched (${errorMessage(error)}); check that the server is running, then try again`,
          error,
        );
      }
      if (!response.ok) {
        const serverMessage = await serverErrorMessage(response);
        throw new SamEdgeError(
          "network",
          `the server answers ${response.status} to ${url}${serverMessage && ` (${serverMessage})`}; check that it serves the complete bundle`,
        );
      }
      try {
        return new Uint8Array(await response.arrayBuffer());
      } catch (error) {
        throw new SamEdgeError(
          "network",
          `the connection broke while ${url} was fetched (${errorMessage(error)}); try again`,
          error,
        );
      }
    },
  };
}
