import { SamEdgeError } from "../runtime/index.ts";
import type { Answer, Methods, Request } from "./protocol.ts";

/** A call that the worker has not answered yet. */
interface PendingCall {
  resolve(result: unknown): void;
  reject(error: Error): void;
  report?(progress: string | number): void;
}

/** Calls the worker's functions; each call returns a promise. */
class WorkerClient {
  readonly #worker = new Worker(new URL("./worker.ts", import.meta.url), { type: "module" });
  readonly #pending = new Map<number, PendingCall>();
  #nextId = 0;

  constructor() {
    this.#worker.onmessage = ({ data }: MessageEvent<Answer>) => {
      const call = this.#pending.get(data.id);
      if (call === undefined) return;
      if ("progress" in data) return call.report?.(data.progress);
      this.#pending.delete(data.id);
      if ("error" in data) call.reject(new SamEdgeError(data.error.kind, data.error.message));
      else call.resolve(data.result);
    };
    this.#worker.onerror = (event) => {
      const reason = event.message || "a file of the page could not be loaded";
      const error = new SamEdgeError(
        "backend",
        `the model's worker stopped (${reason}); load the page again`,
      );
      for (const { reject } of this.#pending.values()) reject(error);
      this.#pending.clear();
    };
  }

  /** Calls a function of the worker. Rejects with the worker's `SamEdgeError`. */
  call<K extends keyof Methods>(
    method: K,
    args: Parameters<Methods[K]>,
    options: { transfer?: Transferable[]; report?: (progress: string | number) => void } = {},
  ): Promise<ReturnType<Methods[K]>> {
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      this.#pending.set(id, { resolve: resolve as PendingCall["resolve"], reject, report: options.report });
      const request: Request = { id, method, args };
      this.#worker.postMessage(request, options.transfer ?? []);
    });
  }
}

export const worker = new WorkerClient();
