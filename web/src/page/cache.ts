import { type Bytes, type Source, verifyFile } from "../runtime/index.ts";

const NAME = "sam-edge-models";

/**
 * Returns a source that keeps model files by their hash in the browser's cache.
 *
 * Pages outside a secure context (plain HTTP from another host) have no cache; every file is fetched there.
 */
export function withCache(source: Source, store: CacheStorage | undefined = globalThis.caches): Source {
  // Measuring each device reads the same files again within seconds.
  const recent = new Map<string, Promise<Bytes>>();
  const load = async (path: string, file: NonNullable<Parameters<Source["read"]>[1]>): Promise<Bytes> => {
    const key = `https://sam-edge.invalid/${file.sha256}`;
    const cache = await store?.open(NAME).catch(() => undefined);
    const kept = await cache?.match(key).catch(() => undefined);
    if (kept !== undefined) {
      const bytes = new Uint8Array(await kept.arrayBuffer());
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
