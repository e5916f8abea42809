/**
 * Runs one job at a time; while it runs, only the newest waits. A job that must not be dropped (a click, while
 * the pointer goes on moving) is replaced only by another such job.
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
