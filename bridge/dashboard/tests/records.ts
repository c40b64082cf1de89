/** Records for tests. */
import type { RecordData } from "../src/api/types";

export const START_MS = Date.UTC(2026, 10, 22, 3, 0, 0);

export function record(topic: string, offset: number, payload: unknown, change: Partial<RecordData> = {}): RecordData {
  return {
    topic,
    payload,
    encoding: typeof payload === "string" ? "text" : "json",
    qos: 1,
    retain: false,
    time: new Date(START_MS + offset * 1000).toISOString(),
    id: `n1-${offset}`,
    client_id: "p1",
    stream: "default",
    epoch: "k3",
    partition: 0,
    offset,
    ...change,
  };
}
