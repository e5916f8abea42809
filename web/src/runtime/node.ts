import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { errorMessage, SamEdgeError } from "./errors.ts";
import type { Source } from "./source.ts";

/** Returns a source that reads a bundle from a folder on disk (Node.js). */
export function folderSource(folder: string): Source {
  return {
    name: folder,
    async read(path) {
      try {
        return new Uint8Array(await readFile(join(folder, path)));
      } catch (error) {
        throw new SamEdgeError(
          "integrity",
          `${join(folder, path)} cannot be read (${errorMessage(error)}); give a folder made by \`sam-edge export\``,
          error,
        );
      }
    },
  };
}
