import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { addressOfTime, isPast, LIVE, nextTime, SPEEDS, timeOfAddress, type TimeInput, type TimeNow, type TimeState } from "../src/app/time-state";
import { ReplayClock } from "../src/time/replay-clock";
import { START_MS } from "./records";

const T = START_MS;
const NOW: TimeNow = { now_ms: T + 3_600_000, shown_ms: T + 5_000, speed: 10 };
const past: TimeState = { mode: "past", at_ms: T };
const replaying: TimeState = { mode: "replaying", from_ms: T, speed: 10 };
const paused: TimeState = { mode: "paused", at_ms: T };

const anyState: fc.Arbitrary<TimeState> = fc.oneof(
  fc.constant(LIVE),
  fc.nat(3_000_000).map((at): TimeState => ({ mode: "paused", at_ms: T + at })),
  fc.nat(3_000_000).map((at): TimeState => ({ mode: "past", at_ms: T + at })),
  fc.tuple(fc.nat(3_000_000), fc.constantFrom(...SPEEDS)).map(([at, speed]): TimeState => ({ mode: "replaying", from_ms: T + at, speed })),
);
const anyInput: fc.Arbitrary<TimeInput> = fc.oneof(
  fc.constantFrom<TimeInput>({ kind: "live" }, { kind: "toggle" }, { kind: "play" }, { kind: "filter" }, { kind: "caughtUp" }),
  fc.integer({ min: -10_000_000, max: 10_000_000 }).map((shift): TimeInput => ({ kind: "goTo", at_ms: T + shift })),
);

describe("the moment on screen", () => {
  test.each<[string, TimeState, TimeInput, TimeState]>([
    ["Space pauses what is live", LIVE, { kind: "toggle" }, { mode: "paused", at_ms: NOW.now_ms }],
    ["Space goes on", paused, { kind: "toggle" }, LIVE],
    ["Space replays from the moment", past, { kind: "toggle" }, replaying],
    ["Space stops a replay where it is", replaying, { kind: "toggle" }, { mode: "past", at_ms: NOW.shown_ms }],
    ["a speed begins a replay", past, { kind: "play" }, replaying],
    ["another speed goes on from where it is", { ...replaying, speed: 1 }, { kind: "play" }, { mode: "replaying", from_ms: NOW.shown_ms, speed: 10 }],
    ["a speed alone leaves what is live", LIVE, { kind: "play" }, LIVE],
    ["a click on the bar", LIVE, { kind: "goTo", at_ms: T }, past],
    ["a click ends a replay", replaying, { kind: "goTo", at_ms: T - 5 }, { mode: "past", at_ms: T - 5 }],
    ["the future is now", past, { kind: "goTo", at_ms: NOW.now_ms + 1 }, LIVE],
    ["another filter while paused is that moment", paused, { kind: "filter" }, past],
    ["another filter of the past stays there", past, { kind: "filter" }, past],
    ["a replay that reached now is live", replaying, { kind: "caughtUp" }, LIVE],
    ["nothing else catches up", past, { kind: "caughtUp" }, past],
  ])("%s", (_name, state, input, next) => {
    expect(nextTime(state, input, NOW)).toEqual(next);
  });

  test("live is one step away from everywhere, and no step leads beyond now", () => {
    fc.assert(
      fc.property(fc.array(anyInput, { maxLength: 20 }), (inputs) => {
        let state: TimeState = LIVE;
        for (const input of inputs) {
          state = nextTime(state, input, NOW);
          const at_ms = state.mode === "live" ? T : state.mode === "replaying" ? state.from_ms : state.at_ms;
          expect(at_ms).toBeLessThanOrEqual(NOW.now_ms);
          expect(nextTime(state, { kind: "live" }, NOW)).toEqual(LIVE);
        }
      }),
    );
  });

  test("all but a pause survives in the address", () => {
    fc.assert(
      fc.property(anyState, (state) => {
        expect(timeOfAddress(addressOfTime(state), NOW.now_ms)).toEqual(isPast(state) ? state : LIVE);
      }),
    );
  });

  test("a relative moment counts from now", () => {
    expect(timeOfAddress({ t: "-15m", x: "" }, NOW.now_ms)).toEqual({ mode: "past", at_ms: NOW.now_ms - 900_000 });
    expect(timeOfAddress({ t: "2100-01-01T00:00:00Z", x: "10" }, NOW.now_ms)).toEqual(LIVE);
  });
});

describe("the head of a replay", () => {
  test("moves at its speed once the stream has answered", () => {
    const clock = new ReplayClock(T, 10);
    expect(clock.now(500)).toBe(T);
    clock.start(1000);
    expect(clock.now(1500)).toBe(T + 5000);
  });

  test("goes by the events, also when the server is slower", () => {
    const clock = new ReplayClock(T, 10);
    clock.start(0);
    clock.take(T + 2000, 1000);
    expect(clock.now(1000)).toBe(T + 2000);
    expect(clock.now(1100)).toBe(T + 3000);
  });

  test("stands still while the stream is cut", () => {
    const clock = new ReplayClock(T, 60);
    clock.start(0);
    clock.stop(100);
    expect(clock.now(5000)).toBe(T + 6000);
    clock.start(5000);
    expect(clock.now(5100)).toBe(T + 12_000);
  });

  test("as fast as possible stands at the last event", () => {
    const clock = new ReplayClock(T, "max");
    clock.start(0);
    clock.take(T + 7, 1);
    expect(clock.now(10_000)).toBe(T + 7);
  });
});
