// Graphile Worker, with the configuration of its performance page (worker.graphile.org/docs/performance): 24 jobs at
// once, a local queue of 500, and completions in batches without a delay.
import { readFileSync } from "node:fs";
import { run, makeWorkerUtils, Logger } from "graphile-worker";
import { marks, serveCommands, timed } from "./talk.mjs";

const PAYLOAD = { organization_id: 42 };
const connectionString = process.argv[2];
const worker = {
  concurrentJobs: 24,
  maxPoolSize: 25,
  localQueue: { size: 500 },
  completeJobBatchDelay: 0,
  failJobBatchDelay: 0,
};
const preset = { worker: { ...worker, connectionString, logger: new Logger(() => () => {}) } };
const utils = await makeWorkerUtils({ preset });

serveCommands({
  async prepare() {
    await utils.migrate();
    return {
      versions: { "graphile-worker": version("graphile-worker"), node: process.version },
      settings: worker,
      unfinished: "select exists (select from graphile_worker._private_jobs)",
    };
  },
  async fill(jobs) {
    await utils.withPgClient((client) => client.query("truncate graphile_worker._private_jobs"));
    for (let start = 0; start < jobs; start += 10_000) {
      const batch = Math.min(10_000, jobs - start);
      await utils.addJobs(Array.from({ length: batch }, () => ({ identifier: "noop", payload: PAYLOAD })));
    }
  },
  enqueue: () => timed(() => utils.addJob("noop", PAYLOAD)),
  async work(every) {
    const began = marks(every);
    await run({ preset, taskList: { noop: async () => began() }, noHandleSignals: true });
  },
});

function version(name) {
  return JSON.parse(readFileSync(new URL(`../../node_modules/${name}/package.json`, import.meta.url))).version;
}
