import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { HistogramAnswer } from "../src/api/types";
import { BUCKETS } from "../src/app/limits";
import { barHeight, bucketOf, countWords, growing, highest, missingIn, movedTo, startOf, uncounted, withAnswer, type Histogram, type Missing } from "../src/time/buckets";
import { allGaps, mergeLosses, type Gap, type LoggedLoss } from "../src/time/gaps";
import { endOf, isIn, panned, placeOf, rangeAt, rangeEnding, showing, span_ms, timeAt, widthOf, zoomed } from "../src/time/range";
import { ticksOf } from "../src/time/ticks";
import { nextWindow, WINDOWS } from "../src/time/windows";
import { START_MS } from "./records";

const iso = (time_ms: number): string => new Date(time_ms).toISOString();
const WIDTH = 3750; // of 15 min
const RANGE = rangeEnding(START_MS, WIDTH);

/** A server that counts messages at these times; `reach` buckets at most, the oldest first. */
function answer(asked: Missing, times: readonly number[], reach = Infinity): HistogramAnswer {
  const width_ms = (asked.to_ms - asked.from_ms) / asked.buckets;
  const end_ms = Math.min(asked.to_ms, asked.from_ms + reach * width_ms);
  const counts = new Map<number, number>();
  for (const time of times) {
    if (time < asked.from_ms || time >= end_ms) continue;
    const start_ms = asked.from_ms + Math.floor((time - asked.from_ms) / width_ms) * width_ms;
    counts.set(start_ms, (counts.get(start_ms) ?? 0) + 1);
  }
  const complete = end_ms === asked.to_ms;
  const buckets = [...counts].map(([time, count]) => ({ time: iso(time), count }));
  return { from: iso(asked.from_ms), to: iso(asked.to_ms), buckets, gaps: [], oldest: null, complete, scanned_to: complete ? null : iso(end_ms) };
}

/** Asks until nothing is missing. */
function filled(histogram: Histogram, times: readonly number[], now_ms: number, reach = Infinity): { histogram: Histogram; requests: number } {
  let known = histogram;
  for (let requests = 0; ; requests += 1) {
    const asked = missingIn(known, now_ms)[0];
    if (!asked) return { histogram: known, requests };
    known = withAnswer(known, asked, answer(asked, times, reach));
  }
}

const anyTimes = fc.array(fc.integer({ min: RANGE.from_ms - 20 * WIDTH, max: endOf(RANGE) + 20 * WIDTH }), { maxLength: 200 });

describe("the range of the bar", () => {
  test("edges are multiples of the bucket's width and the last bucket holds the end", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1e12, max: 2e12 }), fc.constantFrom(...WINDOWS), (end_ms, window) => {
        const range = rangeEnding(end_ms, widthOf(window.ms, START_MS, START_MS + 7e9));
        expect(range.from_ms % range.width_ms).toBe(0);
        expect(bucketOf(range, end_ms)).toBe(BUCKETS - 1);
      }),
    );
  });

  test("zooming keeps what is below the pointer, as far as now allows", () => {
    fc.assert(
      fc.property(fc.double({ min: 0, max: 1, noNaN: true }), fc.constantFrom(-1 as const, 1 as const), (place, direction) => {
        const around_ms = timeAt(RANGE, place);
        const width_ms = widthOf(nextWindow(900_000, direction), null, START_MS);
        const far = zoomed(RANGE, width_ms, around_ms, START_MS + 1e9);
        expect(Math.abs(placeOf(far, around_ms) - place)).toBeLessThan(1 / BUCKETS);
        expect(endOf(zoomed(RANGE, width_ms, around_ms, START_MS))).toBeLessThanOrEqual(START_MS + width_ms);
      }),
    );
  });

  test("a moment outside is brought in, one inside moves nothing", () => {
    fc.assert(
      fc.property(fc.integer({ min: -1e10, max: 0 }), (shift) => {
        const at_ms = START_MS + shift;
        const range = showing(RANGE, at_ms, START_MS);
        expect(isIn(range, at_ms)).toBe(true);
        if (isIn(RANGE, at_ms)) expect(range).toBe(RANGE);
      }),
    );
  });

  test("a replay that runs out turns the page by half, and does not creep", () => {
    const now_ms = START_MS + 1e9;
    const turned = rangeAt(RANGE, WIDTH, endOf(RANGE), now_ms, true);
    expect(turned.from_ms).toBe(RANGE.from_ms + (BUCKETS / 2) * WIDTH);
    expect(rangeAt(turned, WIDTH, endOf(RANGE) + 60_000, now_ms, true)).toBe(turned);
    expect(panned(RANGE, 0.5, START_MS)).toEqual(RANGE);
  });

  test("all that is kept fits, with buckets of a whole width", () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 4e10 }), (kept_ms) => {
        const now_ms = START_MS + kept_ms;
        const range = rangeEnding(now_ms, widthOf(Infinity, START_MS, now_ms));
        expect(range.from_ms).toBeLessThanOrEqual(START_MS);
        expect(range.width_ms % 1000).toBe(0);
      }),
    );
    expect(span_ms(Infinity, null, START_MS)).toBe(86_400_000);
  });

  test("labels are round times inside of the bar", () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 1e12 }), fc.constantFrom(...WINDOWS), fc.integer({ min: 200, max: 3000 }), (end_ms, window, width_px) => {
        const range = rangeEnding(START_MS - end_ms, widthOf(window.ms, START_MS - 9e9, START_MS));
        const ticks = ticksOf(range, width_px);
        expect(ticks.length).toBeLessThanOrEqual(Math.max(1, width_px / 84));
        for (const tick of ticks) {
          expect(isIn(range, tick.time_ms)).toBe(true);
          expect(new Date(tick.time_ms).getSeconds() % 5).toBe(0);
        }
      }),
    );
  });
});

describe("the histogram", () => {
  test("counts each message once, however often the server stops and the bar moves", () => {
    fc.assert(
      fc.property(anyTimes, fc.integer({ min: 1, max: 80 }), fc.array(fc.integer({ min: -100, max: 100 }), { maxLength: 4 }), (times, reach, moves) => {
        const now_ms = endOf(RANGE) + 500 * WIDTH;
        let { histogram } = filled(uncounted(RANGE), times, now_ms, reach);
        for (const move of moves) {
          const range = { ...histogram.range, from_ms: histogram.range.from_ms + move * WIDTH };
          histogram = filled(movedTo(histogram, range), times, now_ms, reach).histogram;
        }
        const expected = new Array<number>(BUCKETS).fill(0);
        for (const time of times) {
          const bucket = bucketOf(histogram.range, time);
          if (bucket >= 0 && bucket < BUCKETS) expected[bucket] = (expected[bucket] ?? 0) + 1;
        }
        expect(histogram.counts).toEqual(expected);
      }),
    );
  });

  test("a bar that moves on by one bucket asks for one bucket", () => {
    const { histogram } = filled(uncounted(RANGE), [], endOf(RANGE) - 1);
    const moved = movedTo(histogram, { ...RANGE, from_ms: RANGE.from_ms + WIDTH });
    expect(missingIn(moved, endOf(RANGE))).toEqual([{ from_ms: endOf(RANGE), to_ms: endOf(RANGE) + WIDTH, buckets: 1 }]);
  });

  test("missing and known buckets are all buckets up to now", () => {
    fc.assert(
      fc.property(fc.uniqueArray(fc.nat(BUCKETS - 1)), fc.nat(BUCKETS - 1), (known, last) => {
        const histogram = uncounted(RANGE);
        for (const bucket of known) histogram.counts[bucket] = 1;
        const now_ms = startOf(RANGE, last);
        const missing = missingIn(histogram, now_ms).reduce((sum, run) => sum + run.buckets, 0);
        expect(missing + known.filter((bucket) => bucket <= last).length).toBe(last + 1);
      }),
    );
  });

  test("the newest buckets are counted again and replace what they were", () => {
    const first = filled(uncounted(RANGE), [START_MS], START_MS).histogram;
    const asked = growing(first, START_MS - 10_000, START_MS + 100);
    expect(asked?.to_ms).toBe(endOf(RANGE));
    const again = withAnswer(first, asked as Missing, answer(asked as Missing, [START_MS, START_MS + 1]));
    expect(again.counts.at(-1)).toBe(2);
    expect(growing(first, endOf(RANGE) + 1, endOf(RANGE) + 2)).toBeNull();
  });

  test("a bucket that was counted in part keeps what it had", () => {
    const asked: Missing = { from_ms: RANGE.from_ms, to_ms: endOf(RANGE), buckets: BUCKETS };
    const half: HistogramAnswer = { ...answer(asked, []), complete: false, scanned_to: iso(RANGE.from_ms + WIDTH * 1.5) };
    expect(withAnswer(uncounted(RANGE), asked, half).counts.slice(0, 3)).toEqual([0, null, null]);
  });

  test("three kinds of empty have three texts", () => {
    const { histogram } = filled(uncounted(RANGE), [START_MS], START_MS);
    const loss: LoggedLoss = { from_ms: START_MS - 60_000, to_ms: START_MS - 30_000, reason: "epoch" };
    const deleted: LoggedLoss = { from_ms: RANGE.from_ms, to_ms: START_MS - 300_000, reason: "retention" };
    const known = { ...histogram, losses: [deleted, loss] };
    expect(countWords(known, START_MS)).toBe("1 message in these 3.75 s");
    expect(countWords(known, START_MS - 120_000)).toBe("no message in these 3.75 s");
    expect(countWords(known, START_MS - 45_000)).toBe("lost, if there was any: the stream began anew");
    expect(countWords(known, START_MS - 400_000)).toBe("no longer kept");
    expect(countWords(uncounted(RANGE), START_MS)).toBe("not counted");
  });

  test("heights are square roots; one message is seen beside a million", () => {
    expect(barHeight(25, 100, 30)).toBe(15);
    expect(barHeight(0, 100, 30)).toBe(0);
    expect(barHeight(1, 1_000_000, 30)).toBe(1);
    expect(highest(uncounted(RANGE))).toBe(0);
  });
});

describe("losses", () => {
  const anyLoss = fc
    .record({ from_ms: fc.nat(1000), length: fc.integer({ min: 1, max: 200 }), reason: fc.constantFrom("epoch" as const, "retention" as const) })
    .map(({ from_ms, length, reason }): LoggedLoss => ({ from_ms, to_ms: from_ms + length, reason }));

  test("pieces of one loss become one, whatever cut them", () => {
    fc.assert(
      fc.property(fc.array(anyLoss, { maxLength: 20 }), fc.integer({ min: 1, max: 1200 }), (losses, cut) => {
        const pieces = losses.flatMap((loss) =>
          loss.from_ms < cut && cut < loss.to_ms ? [{ ...loss, to_ms: cut }, { ...loss, from_ms: cut }] : [loss],
        );
        expect(mergeLosses(pieces)).toEqual(mergeLosses(losses));
        expect(mergeLosses(mergeLosses(losses))).toEqual(mergeLosses(losses));
      }),
    );
  });

  test("what the page noticed and the log tells of is one loss", () => {
    const noticed: Gap = { id: 1, from_ms: 1000, to_ms: 5000, lost: 4, reason: "epoch" };
    const logged: LoggedLoss[] = [
      { from_ms: 2000, to_ms: 3000, reason: "epoch" },
      { from_ms: 100, to_ms: 200, reason: "epoch" },
    ];
    expect(allGaps([noticed], logged, 0)).toEqual([{ id: -1, from_ms: 100, to_ms: 200, lost: null, reason: "epoch" }, noticed]);
    expect(allGaps([{ ...noticed, to_ms: null }], logged, 0)).toHaveLength(2);
  });

  test("what is no longer kept is no loss, and one without a beginning has no mark", () => {
    const logged: LoggedLoss[] = [
      { from_ms: 500, to_ms: 2000, reason: "retention" },
      { from_ms: 0, to_ms: 3000, reason: "epoch" },
    ];
    expect(allGaps([], logged, 0)).toEqual([]);
  });
});
