// talk.py's other half: the same conversation for contenders that run on Node.
import { writeSync } from "node:fs";
import { createInterface } from "node:readline";

const now = () => Number(process.hrtime.bigint());

export const say = (words) => writeSync(1, JSON.stringify(words) + "\n");

export function marks(every) {
  let count = 0;
  return () => {
    count += 1;
    if (count === 1 || count % every === 0) say({ job: count, at_ns: now() });
  };
}

export async function timed(enqueue) {
  const sent_ns = now();
  await enqueue();
  return { sent_ns, committed_ns: now() };
}

export function serveCommands(commands) {
  const fail = (error) => {
    say({ failed: String(error) });
    process.exit(1);
  };
  const lines = createInterface({ input: process.stdin });
  lines.on("line", (line) => {
    const [name, ...numbers] = line.trim().split(/\s+/);
    Promise.resolve(commands[name](...numbers.map(Number))).then((answer) => say({ done: true, ...answer }), fail);
  });
  lines.on("close", () => process.exit(0));
  say({ ready: now() });
}
