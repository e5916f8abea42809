/**
 * Returns a function that submits a job. Jobs run one at a time; while one runs, only the newest is queued.
 *
 * A queued job with priority (a click, as opposed to a pointer move) is replaced only by another with priority.
 */
export function coalescingQueue<T>(run: (job: T) => Promise<void>, hasPriority: (job: T) => boolean) {
  let queued: { job: T } | undefined;
  let running = false;
  return async function submit(job: T): Promise<void> {
    if (queued === undefined || hasPriority(job) || !hasPriority(queued.job)) queued = { job };
    if (running) return;
    running = true;
    try {
      while (queued !== undefined) {
        const next: T = queued.job;
        queued = undefined;
        await run(next);
      }
    } finally {
      running = false;
    }
  };
}
