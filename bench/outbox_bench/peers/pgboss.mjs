// pg-boss, with what its documentation offers for load and latency (docs/api/workers.md, docs/api/constructor.md): jobs
// in batches, fetched again at once while batches come back full, several workers, and LISTEN/NOTIFY for the queue.
// It names no values for load: these were the best of batches of 100 to 2000 and 1 to 4 workers, taken in turn.
import { readFileSync } from "node:fs";
import { PgBoss } from "pg-boss";
import { marks, serveCommands, timed } from "./talk.mjs";

const QUEUE = "noop";
const PAYLOAD = { organization_id: 42 };
const options = {
  batchSize: 1000,
  burstWhenBatchFull: true,
  localConcurrency: 2,
  pollingIntervalSeconds: 0.5,
};
const boss = new PgBoss({ connectionString: process.argv[2], useListenNotify: true });
boss.on("error", console.error);

serveCommands({
  async prepare() {
    await boss.start();
    if (!(await boss.getQueue(QUEUE))) await boss.createQueue(QUEUE, { notify: true });
    return {
      versions: { "pg-boss": version("pg-boss"), node: process.version },
      settings: { ...options, useListenNotify: true, notify: true },
      unfinished: "select exists (select from pgboss.job where name = 'noop' and state < 'completed')",
    };
  },
  async fill(jobs) {
    await boss.deleteAllJobs(QUEUE);
    for (let start = 0; start < jobs; start += 10_000) {
      const batch = Math.min(10_000, jobs - start);
      await boss.insert(QUEUE, Array.from({ length: batch }, () => ({ data: PAYLOAD })));
    }
  },
  enqueue: () => timed(() => boss.send(QUEUE, PAYLOAD)),
  async work(every) {
    const began = marks(every);
    await boss.start();
    // For a single job several workers would only get in each other's way.
    const localConcurrency = every === 1 ? 1 : options.localConcurrency;
    await boss.work(QUEUE, { ...options, localConcurrency }, async (jobs) => jobs.forEach(began));
  },
});

function version(name) {
  return JSON.parse(readFileSync(new URL(`../../node_modules/${name}/package.json`, import.meta.url))).version;
}
