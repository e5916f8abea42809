/** What an error is about. */
export type ErrorKind = "manifest" | "integrity" | "network" | "prompt" | "image" | "backend";

/** Every error that the runtime raises on purpose: what was wrong, what was expected, what to do next. */
export class SamEdgeError extends Error {
  readonly kind: ErrorKind;

  constructor(kind: ErrorKind, message: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = "SamEdgeError";
    this.kind = kind;
  }
}

/** The message of anything that was thrown, on one line. */
export function reason(error: unknown): string {
  return (error instanceof Error ? error.message : String(error)).replace(/\s+/g, " ").trim();
}
