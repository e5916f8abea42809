/** Category of an error. */
export type ErrorKind = "manifest" | "integrity" | "network" | "prompt" | "image" | "backend";

/** An error raised by the runtime; the message says what was wrong, what was expected and what to do. */
export class SamEdgeError extends Error {
  readonly kind: ErrorKind;

  constructor(kind: ErrorKind, message: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = "SamEdgeError";
    this.kind = kind;
  }
}

/** Returns the message of any thrown value, on one line. */
export function errorMessage(error: unknown): string {
  return (error instanceof Error ? error.message : String(error)).replace(/\s+/g, " ").trim();
}
