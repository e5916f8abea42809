import { type Bytes, check, type Source } from "../runtime/index.ts";

const NAME = "sam-edge-models";

/**
 * `source` with model files kept by their hash, in the browser's cache where it has one: pages that come over
 * plain HTTP from another machine have none.
 */
export function cached(source: Source, store: CacheStorage | undefined = globalThis.caches): Source {
  // While devices are measured against each other, a file is asked for more than once.
  const recent = new Map<string, Promise<Bytes>>();
  const load = async (path: string, file: NonNullable<Parameters<Source["read"]>[1]>): Promise<Bytes> => {
    const key = `https://sam-edge.invalid/${file.sha256}`;
    const cache = await store?.open(NAME).catch(() => undefined);
    const kept = await cache?.match(key).catch(() => undefined);
    if (kept !== undefined) {
      const bytes = new Uint8Array(await kept.arrayBuffer());
      try {
        await check(source.name, file, bytes);
        return bytes;
      } catch {
        await cache?.delete(key);
      }
    }
    const bytes = await source.read(path, file);
    await check(source.name, file, bytes);
    // A full disk is no reason to stop.
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
