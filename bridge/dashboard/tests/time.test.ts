import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { ServerClock } from "../src/time/clock";
import { age, distance, duration, measured, ordinal, rate, zoneName } from "../src/time/format";
import { breakLine, type Gap } from "../src/time/gaps";
import { START_MS } from "./records";

const every = (count: number, step_ms: number): number[] => [...Array(count).keys()].map((index) => START_MS + index * step_ms);
const gapAt = (from_ms: number, id = 1): Gap => ({ id, from_ms, to_ms: null, lost: null, reason: "epoch" });

describe("breaks of a line", () => {
  test("one gap is one break, also with nothing but that gap", () => {
    const times = every(10, 1000);
    const line = breakLine(times, times.map(() => 1), [gapAt(START_MS + 4000)]);
    expect(line.breaks).toBe(1);
    expect(line.values.filter((value) => value === null)).toHaveLength(1);
    expect(line.values.indexOf(null)).toBe(5);
  });

  test("a gap after the last point breaks when the next one comes", () => {
    const times = every(5, 1000);
    const gap = gapAt(START_MS + 4000);
    expect(breakLine(times, times.map(() => 1), [gap]).breaks).toBe(0);
    const more = [...times, START_MS + 9000];
    expect(breakLine(more, more.map(() => 1), [gap]).breaks).toBe(1);
  });

  test("long silence is dotted, not a loss", () => {
    const times = [...every(10, 1000), START_MS + 60_000];
    const line = breakLine(times, times.map(() => 1), []);
    expect(line.breaks).toBe(0);
    expect(line.silences).toEqual([[9, 11]]);
  });

  test("no gap, no break, however long the hour without messages", () => {
    const times = [START_MS, START_MS + 3_600_000];
    expect(breakLine(times, [1, 2], []).breaks).toBe(0);
  });

  test("every point stays, in order, with at most one break for each gap", () => {
    fc.assert(
      fc.property(fc.array(fc.nat(100_000), { maxLength: 50 }), fc.array(fc.nat(100_000), { maxLength: 10 }), (offsets, gapOffsets) => {
        const times = [...offsets].sort((left, right) => left - right).map((offset) => START_MS + offset);
        const gaps = [...gapOffsets].sort((left, right) => left - right).map((offset, index) => gapAt(START_MS + offset, index));
        const line = breakLine(times, times, gaps);
        expect(line.times.filter((_time, index) => line.values[index] !== null)).toEqual(times);
        expect(line.breaks).toBeLessThanOrEqual(gaps.length);
      }),
    );
  });
});

describe("words", () => {
  test.each([
    [0, "0 s"],
    [40_400, "40 s"],
    [185_000, "3 min"],
    [7_300_000, "2 h"],
    [200_000_000, "2 d"],
    [-500, "0 s"],
  ])("age %d", (elapsed, words) => expect(age(elapsed)).toBe(words));

  test.each([
    [9600, "9,600 /s"],
    [12_345, "12.3 k/s"],
    [212.4, "212 /s"],
    [4, "4 /s"],
    [1 / 60, "1 /min"],
    [2 / 3600, "2 /h"],
    [0, "0 /s"],
  ])("rate %d", (perSecond, words) => expect(rate(perSecond)).toBe(words));

  test("others", () => {
    expect(duration(48_000)).toBe("48 s");
    expect(duration(125_000)).toBe("2 min 5 s");
    expect(distance(980)).toBe("+0.98 s");
    expect(distance(200_000)).toBe("+3 min");
    expect(measured(21.600000000000001)).toBe("21.6");
    expect(measured(81_213)).toBe("81,213");
    expect(measured(2 ** 60)).toMatch(/^≈/);
    expect([1, 2, 3, 4, 11, 21].map(ordinal)).toEqual(["1st", "2nd", "3rd", "4th", "11th", "21st"]);
    expect(zoneName(-60)).toBe("UTC+1");
    expect(zoneName(210)).toBe("UTC−3:30");
  });
});

describe("the server's clock", () => {
  test("the sample with the shortest way counts", () => {
    const clock = new ServerClock();
    clock.sample(10_000, 0, 2000);
    clock.sample(15_050, 6000, 6100);
    clock.sample(90_000, 20_000, 29_000);
    expect(clock.offset_ms).toBe(9000);
  });

  test("a message is never from the future", () => {
    const clock = new ServerClock();
    clock.heard(5000, 4000);
    expect(clock.now(4000)).toBe(5000);
  });
});
