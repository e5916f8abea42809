import { type Bytes, type Source, verifyFile } from "../runtime/index.ts";

const CACHE_NAME = "sam-edge-models";

/**
 * Returns a source that keeps model files in the browser's Cache Storage, by their hash.
 *
 * Pages outside a secure context (plain HTTP from another host) have no Cache Storage; there, every file is fetched.
 */
export function withCache(source: Source, storage: CacheStorage | undefined = globalThis.caches): Source {
  // Each device that is measured reads the same files, within seconds.
  const recent = new Map<string, Promise<Bytes>>();
  const load = async (path: string, file: NonNullable<Parameters<Source["read"]>[1]>): Promise<Bytes> => {
    const key = `https://sam-edge.invalid/${file.sha256}`;
    const cache = await storage?.open(CACHE_NAME).catch(() => undefined);
    const cached = await cache?.match(key).catch(() => undefined);
    if (cached !== undefined) {
      const bytes = new Uint8Array(await cached.arrayBuffer());
      try {
        await verifyFile(source.name, file, bytes);
        return bytes;
      } catch {
        await cache?.delete(key);
      }
    }
    const bytes = await source.read(path, file);
    await verifyFile(source.name, file, bytes);
    // Caching is optional: continue if the disk is full.
    await cache?.put(key, new Response(bytes)).catch(() => undefined);
    return bytes;
  };
  return {
    name: source.name,
    read(path, file) {
      if (file === undefined) return source.read(path);
      let bytes = recent.get(file.sha256);
      if (bytes === undefined) {
        bytes = load(path, file);
        recent.set(file.sha256, bytes);
        const forget = () => recent.delete(file.sha256);
        bytes.then(() => setTimeout(forget, 10_000), forget);
      }
      return bytes;
    },
  };
}
