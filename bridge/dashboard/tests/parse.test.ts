import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { momentWords } from "../src/time/format";
import { parseMoment } from "../src/time/parse";

/** Sunday 22 November 2026, 12:00:30, in the zone of whoever runs this. */
const NOW = new Date(2026, 10, 22, 12, 0, 30).getTime();
const local = (month: number, day: number, hour: number, minute: number, second = 0, ms = 0, year = 2026): number =>
  new Date(year, month - 1, day, hour, minute, second, ms).getTime();

describe("moments that people type", () => {
  test.each<[string, number | null]>([
    ["03:12", local(11, 22, 3, 12)],
    ["3:12", local(11, 22, 3, 12)],
    ["03:12:07.25", local(11, 22, 3, 12, 7, 250)],
    ["13:00", local(11, 21, 13, 0)],
    ["yesterday 03:12", local(11, 21, 3, 12)],
    ["today 03:12:07", local(11, 22, 3, 12, 7)],
    ["22 Nov 03:12:07", local(11, 22, 3, 12, 7)],
    ["Sun 22 Nov 03:12:07.250", local(11, 22, 3, 12, 7, 250)],
    ["24 December 20:00", local(12, 24, 20, 0, 0, 0, 2025)],
    ["1 Jan 2025, 00:00", local(1, 1, 0, 0, 0, 0, 2025)],
    ["2026-11-22 03:12", local(11, 22, 3, 12)],
    ["2026-11-22T03:12:07.250Z", Date.UTC(2026, 10, 22, 3, 12, 7, 250)],
    ["2026-11-22T04:12:07+01:00", Date.UTC(2026, 10, 22, 3, 12, 7)],
    ["1795317127250", 1_795_317_127_250],
    ["-15m", NOW - 900_000],
    ["-90 s", NOW - 90_000],
    ["18 h ago", NOW - 18 * 3_600_000],
    [" now ", NOW],
    ["", null],
    ["noon", null],
    ["25:00", null],
    ["03:60", null],
    ["22 Foo 03:12", null],
    ["15", null],
  ])("%s", (text, time_ms) => {
    expect(parseMoment(text, NOW)).toBe(time_ms);
  });

  test("what the page shows can be typed in again", () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 200 * 86_400_000 }), (ago) => {
        const time_ms = NOW - ago;
        // In the hour that a change of the clocks repeats, a time of day means two moments.
        fc.pre(new Date(time_ms).getTimezoneOffset() === new Date(time_ms - 7_200_000).getTimezoneOffset());
        expect(parseMoment(momentWords(time_ms), NOW)).toBe(time_ms);
        expect(parseMoment(new Date(time_ms).toISOString(), NOW)).toBe(time_ms);
      }),
    );
  });
});
