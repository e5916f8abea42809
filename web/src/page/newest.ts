/**
 * Returns a function that runs submitted jobs one at a time and, while one runs, queues only the newest.
 *
 * A queued job for which `mustRun` is true (a click, as opposed to a pointer move) is replaced only by another
 * such job.
 */
export function newestOnly<T>(run: (job: T) => Promise<void>, mustRun: (job: T) => boolean) {
  let waiting: { job: T } | undefined;
  let running = false;
  return async function submit(job: T): Promise<void> {
    if (waiting === undefined || mustRun(job) || !mustRun(waiting.job)) waiting = { job };
    if (running) return;
    running = true;
    try {
      while (waiting !== undefined) {
        const next: T = waiting.job;
        waiting = undefined;
        await run(next);
      }
    } finally {
      running = false;
    }
  };
}
