// Subscribes with Supabase's own client and writes a JSON line for each thing that happens.
// node subscribe.mjs URL KEY postgres_changes|broadcast
import { RealtimeClient } from "@supabase/realtime-js";
import WebSocket from "ws";

const [url, key, via] = process.argv.slice(2);
const report = (what, detail) => process.stdout.write(JSON.stringify({ what, detail }) + "\n");
const client = new RealtimeClient(url.replace("http", "ws"), { params: { apikey: key }, transport: WebSocket });
await client.setAuth(key);
const config = via === "broadcast" ? { private: true, broadcast: { replication_ready: true } } : { private: false };
const channel = client.channel("outbox", { config });
if (via === "broadcast") {
  channel.on("broadcast", { event: "wake" }, (message) => report("broadcast", message.payload));
} else {
  channel.on("postgres_changes", { event: "INSERT", schema: "outbox", table: "message" }, (change) => report("insert", change.new));
}
channel.on("system", {}, (message) => report("system", message));
channel.subscribe((status, error) => report(status, error?.message ?? null));
