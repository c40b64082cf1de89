import { describe, expect, test } from "vitest";
import { BUCKETS } from "../src/app/limits";
import { uncounted, type Histogram } from "../src/time/buckets";
import { barsOf, sentWords, unknownOf } from "../src/time/message-lane";
import { START_MS } from "./records";

const RANGE = { from_ms: START_MS, width_ms: 2_000 };

function counted(counts: Record<number, number | null>, losses: Histogram["losses"] = []): Histogram {
  const histogram = uncounted(RANGE);
  histogram.counts = histogram.counts.map((_, bucket) => (bucket in counts ? (counts[bucket] ?? null) : 0));
  histogram.losses = losses;
  return histogram;
}

describe("the lane of a device's messages", () => {
  test("a bar for each bucket that has some, by the square root, and none of the future", () => {
    expect(barsOf(counted({ 3: 100, 5: 25, 200: 50 }), 20, 100)).toBe("M3 20v-20.0h.8V20zM5 20v-10.0h.8V20z");
    expect(barsOf(counted({}), 20, BUCKETS)).toBe("");
  });

  test("three kinds of empty are not confused", () => {
    const losses = [
      { from_ms: 0, to_ms: START_MS + 10_000, reason: "retention" },
      { from_ms: START_MS + 20_000, to_ms: START_MS + 24_000, reason: "epoch" },
    ] as Histogram["losses"];
    expect(unknownOf(counted({ 4: 7, 30: null, 31: null, 50: null }, losses), 40)).toEqual([
      { from: 0, to: 4, why: "retention" },
      { from: 10, to: 12, why: "lost" },
      { from: 30, to: 32, why: "not counted" },
    ]);
  });

  test("in words", () => {
    expect(sentWords(counted({ 3: 1200, 5: 4 }), BUCKETS)).toBe("1,204 messages, at most 600 /s");
    expect(sentWords(counted({ 3: 1 }), BUCKETS)).toBe("1 message");
    expect(sentWords(counted({ 3: 8, 5: null }), BUCKETS)).toBe("at least 8 messages, at most 4 /s");
    expect(sentWords(counted({ 3: 8 }), 3)).toBe("no message");
    expect(sentWords(uncounted(RANGE), BUCKETS)).toBe("not counted yet");
  });
});
