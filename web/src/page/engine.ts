import { SamEdgeError } from "../runtime/index.ts";
import type { Answer, Methods, Request } from "./protocol.ts";

/** A call that the worker has not answered yet. */
interface Waiting {
  resolve(result: unknown): void;
  reject(error: Error): void;
  report?(progress: string | number): void;
}

/** Calls the worker's functions; each call returns a promise. */
export class Engine {
  readonly #worker = new Worker(new URL("./worker.ts", import.meta.url), { type: "module" });
  readonly #waiting = new Map<number, Waiting>();
  #next = 0;

  constructor() {
    this.#worker.onmessage = ({ data }: MessageEvent<Answer>) => {
      const waiting = this.#waiting.get(data.id);
      if (waiting === undefined) return;
      if ("progress" in data) return waiting.report?.(data.progress);
      this.#waiting.delete(data.id);
      if ("error" in data) waiting.reject(new SamEdgeError(data.error.kind, data.error.message));
      else waiting.resolve(data.result);
    };
    this.#worker.onerror = (event) => {
      const what = event.message || "a file of the page could not be loaded";
      const error = new SamEdgeError("backend", `the model's worker stopped (${what}); load the page again`);
      for (const { reject } of this.#waiting.values()) reject(error);
      this.#waiting.clear();
    };
  }

  /** Calls a function of the worker. Rejects with the worker's `SamEdgeError`. */
  call<K extends keyof Methods>(
    method: K,
    args: Parameters<Methods[K]>,
    options: { transfer?: Transferable[]; report?: (progress: string | number) => void } = {},
  ): Promise<ReturnType<Methods[K]>> {
    const id = this.#next++;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve: resolve as Waiting["resolve"], reject, report: options.report });
      const request: Request = { id, method, args };
      this.#worker.postMessage(request, options.transfer ?? []);
    });
  }
}
