import { describe, expect, test } from "vitest";
import type { StreamInfo, SystemInfo } from "../src/api/types";
import { kafkaWords, keptWords, milliseconds, newestWords, ofLimit, oldestWords, rateWords, storedShare, storedWords, warningsOf } from "../src/views/stream-words";
import { START_MS } from "./records";

const MIB = 1 << 20;
const GIB = 1 << 30;
const NOW = START_MS;
const ago = (ms: number): string => new Date(NOW - ms).toISOString();

const BARE: StreamInfo = { name: "default", storage: "sqlite", records: 12 };
const SYSTEM: SystemInfo = { version: "1", time: ago(0), listen: [] };
const KAFKA: StreamInfo = {
  ...BARE,
  name: "telemetry",
  storage: "kafka",
  kafka: { topic: "headrace.telemetry", state: "down", since: ago(600_000), partitions: 12, mismatch: [] },
  spool: { state: "spooling", records: 41_204, bytes: 38 * MIB, bytes_max: GIB, full_in_s: 9600 },
  dead_letters: { records: 0, newest: null },
};

describe("a stream in words", () => {
  test("what the server does not say is a dash, not a zero", () => {
    expect([rateWords(BARE), storedWords(BARE), keptWords(BARE), milliseconds(undefined), kafkaWords(BARE), oldestWords(BARE, NOW)]).toEqual(Array(6).fill("–"));
    expect(storedShare(BARE)).toBeNull();
    expect(warningsOf([BARE], null, NOW)).toEqual([]);
  });

  test.each<[number, number | null, string]>([
    [7.1 * GIB, 10 * GIB, "7.1 of 10 GiB"],
    [0.2 * GIB, GIB, "0.2 of 1 GiB"],
    [38 * MIB, GIB, "38 of 1,024 MiB"],
    [0, GIB, "0 of 1 GiB"],
    [300, 64 * MIB, "300 B of 64 MiB"],
    [5 * MIB, null, "5 MiB"],
  ])("%d of %d", (size, limit, words) => {
    expect(ofLimit(size, limit)).toBe(words);
  });

  test("ages, limits and times", () => {
    expect(keptWords({ ...BARE, retention: { age_s: 7 * 86_400, bytes: GIB } })).toBe("7 d");
    expect(keptWords({ ...BARE, retention: { age_s: 86_400 } })).toBe("24 h");
    expect(keptWords({ ...BARE, retention: { bytes: GIB } })).toBe("by size");
    expect(newestWords({ ...BARE, newest: ago(500) }, NOW)).toBe("now");
    expect(newestWords({ ...BARE, newest: ago(180_000) }, NOW)).toBe("3 min ago");
    expect(milliseconds(4.123)).toBe("4.1 ms");
    expect(milliseconds(1234.5)).toBe("1,235 ms");
  });

  test("Kafka's column says partitions, state and what waits", () => {
    expect(kafkaWords(KAFKA)).toBe("12 partitions · unreachable · spool 41,204");
    expect(kafkaWords({ ...KAFKA, kafka: { state: "up", partitions: 1, mismatch: ["x"] }, spool: null })).toBe("1 partition · connected · not as configured");
  });
});

describe("warnings", () => {
  test("an outage is one line, with what waits and for how long there is room", () => {
    const [warning, ...others] = warningsOf([BARE, KAFKA], SYSTEM, NOW);
    expect(warning?.text).toMatch(/^Kafka is unreachable since .*\d\d:\d\d\. 41,204 messages wait in the spool \(38 of 1,024 MiB, full in 2 h 40 min at this rate\)\.$/);
    expect(others).toEqual([]);
  });

  test("two streams that wait are one line", () => {
    const texts = warningsOf([KAFKA, { ...KAFKA, name: "other" }], SYSTEM, NOW).map((warning) => warning.text);
    expect(texts).toHaveLength(1);
    expect(texts[0]).toContain("82,408 messages wait");
  });

  test("the end of an outage, dead letters, differences and failures are said", () => {
    const drained: StreamInfo = {
      ...KAFKA,
      failure: "the disk is full",
      kafka: { state: "up", mismatch: ["retention.ms is 1"] },
      spool: { state: "draining", records: 1, bytes: 10, rate: 300 },
      dead_letters: { records: 1, newest: null },
    };
    expect(warningsOf([drained], SYSTEM, NOW).map(({ tone, text }) => [tone, text])).toEqual([
      ["bad", "telemetry: the disk is full"],
      ["info", "telemetry: Kafka is back. 1 message moves from the spool to it at 300 /s."],
      ["warn", "telemetry: retention.ms is 1"],
      ["warn", "telemetry: Kafka will never take 1 message. They are kept as dead letters; headrace streams dead-letters lists them with the reasons."],
    ]);
  });

  test("a topic that is gone is said by its name", () => {
    const texts = warningsOf([{ ...KAFKA, kafka: { topic: "t1", state: "gone" } }], SYSTEM, NOW).map((warning) => warning.text);
    expect(texts[0]).toBe("telemetry: the Kafka topic t1 is gone. 41,204 messages wait in the spool (38 of 1,024 MiB, full in 2 h 40 min at this rate).");
  });
});
