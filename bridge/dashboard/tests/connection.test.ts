import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { AWAY_MS_MAX, HIDDEN_STREAM_MS, RETRY_FIRST_MS, RETRY_MAX_MS } from "../src/app/limits";
import { backoff_ms } from "../src/stream/backoff";
import { INITIAL, silence_ms, step, type ConnectionState, type Effect, type Input } from "../src/stream/connection";

/** Drives the machine with inputs at times; returns the last state and all effects. */
function drive(inputs: [number, Input][], random = 0.5): { state: ConnectionState; effects: Effect[] } {
  let state = INITIAL;
  const effects: Effect[] = [];
  for (const [now_ms, input] of inputs) {
    const next = step(state, input, now_ms, random);
    state = next.state;
    effects.push(...next.effects);
  }
  return { state, effects };
}

const LIVE: [number, Input][] = [
  [0, { kind: "start" }],
  [10, { kind: "opened" }],
  [20, { kind: "live" }],
];

describe("connection", () => {
  test("the first opening asks for a snapshot", () => {
    const { state, effects } = drive(LIVE);
    expect(state.phase).toBe("live");
    expect(effects).toEqual([{ kind: "abort" }, { kind: "open", isFresh: true }]);
  });

  test("after a cut it waits, then resumes from its cursor", () => {
    const cut = drive([...LIVE, [1000, { kind: "closed", retry_ms: 0 }]]);
    expect(cut.state.phase).toBe("waiting");
    expect(cut.state.retryAt_ms).toBe(1000 + RETRY_FIRST_MS / 2);
    const { state, effects } = drive([...LIVE, [1000, { kind: "closed", retry_ms: 0 }], [1200, { kind: "tick" }]]);
    expect(state.phase).toBe("connecting");
    expect(effects.at(-1)).toEqual({ kind: "open", isFresh: false });
  });

  test("without a byte for longer than the heartbeats allow it is dead", () => {
    const almost = drive([...LIVE, [silence_ms(), { kind: "tick" }]]);
    expect(almost.state.phase).toBe("live");
    const { state, effects } = drive([...LIVE, [silence_ms() + 11, { kind: "tick" }]]);
    expect(state.phase).toBe("waiting");
    expect(effects.at(-1)).toEqual({ kind: "abort" });
  });

  test("any byte keeps it alive", () => {
    const { state } = drive([...LIVE, [silence_ms(), { kind: "bytes" }], [silence_ms() * 2, { kind: "tick" }]]);
    expect(state.phase).toBe("live");
  });

  test("cut off for longer than two minutes: a fresh snapshot, said once", () => {
    const back = AWAY_MS_MAX + 2000;
    const { effects } = drive([...LIVE, [1000, { kind: "closed", retry_ms: 0 }], [back, { kind: "tick" }], [back + 10, { kind: "opened" }]]);
    expect(effects.slice(2)).toEqual([
      { kind: "skipped", away_ms: back - 10 },
      { kind: "open", isFresh: true },
    ]);
  });

  test("several failed tries after a long absence say it once", () => {
    const back = AWAY_MS_MAX + 2000;
    const { effects } = drive([
      ...LIVE,
      [1000, { kind: "closed", retry_ms: 0 }],
      [back, { kind: "tick" }],
      [back + 10, { kind: "closed", retry_ms: 0 }],
      [back + 60_000, { kind: "tick" }],
    ]);
    expect(effects.filter((effect) => effect.kind === "skipped")).toHaveLength(1);
  });

  test("hidden for long it closes the stream and keeps the cursor; shown again it opens", () => {
    const rested = drive([...LIVE, [100, { kind: "hidden" }], [101 + HIDDEN_STREAM_MS, { kind: "tick" }]]);
    expect(rested.state.phase).toBe("resting");
    expect(rested.effects.at(-1)).toEqual({ kind: "abort" });
    const shown = step(rested.state, { kind: "shown" }, 102 + HIDDEN_STREAM_MS, 0);
    expect(shown.effects).toEqual([{ kind: "open", isFresh: false }]);
  });

  test("hidden for a short time changes nothing", () => {
    const { state, effects } = drive([...LIVE, [100, { kind: "hidden" }], [1000, { kind: "tick" }], [1100, { kind: "shown" }]]);
    expect(state.phase).toBe("live");
    expect(effects).toHaveLength(2);
  });

  test("asleep it opens for nobody, and wakes where it was", () => {
    const asleep = drive([...LIVE, [100, { kind: "sleep" }], [200, { kind: "hidden" }], [300, { kind: "shown" }], [1e6, { kind: "tick" }], [1e6, { kind: "now" }]]);
    expect(asleep.state.phase).toBe("resting");
    expect(asleep.effects.slice(2)).toEqual([{ kind: "abort" }]);
    expect(step(asleep.state, { kind: "wake" }, 1100, 0).effects).toEqual([{ kind: "open", isFresh: false }]);
  });

  test("another filter while asleep begins anew when it wakes, and nothing is called skipped", () => {
    const asleep = drive([...LIVE, [100, { kind: "sleep" }], [200, { kind: "start" }]]);
    expect(asleep.effects.slice(2)).toEqual([{ kind: "abort" }]);
    expect(step(asleep.state, { kind: "wake" }, 1e9, 0).effects).toEqual([{ kind: "open", isFresh: true }]);
    expect(step(INITIAL, { kind: "wake" }, 0, 0).effects).toEqual([]);
  });

  test("a refusal waits for a person", () => {
    const refused = drive([...LIVE.slice(0, 1), [10, { kind: "refused", status: 403, text: "no" }], [1e9, { kind: "tick" }]]);
    expect(refused.state.phase).toBe("refused");
    const again = step(refused.state, { kind: "now" }, 1e9, 0);
    expect(again.effects).toEqual([{ kind: "open", isFresh: true }]);
  });

  test("back-off doubles within its bounds, never below the server's wish", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 10_000 }), fc.double({ min: 0, max: 0.999_999, noNaN: true }), fc.nat(5000), (attempt, random, least) => {
        const wait = backoff_ms(attempt, random, least);
        expect(wait).toBeGreaterThanOrEqual(least);
        expect(wait).toBeLessThanOrEqual(Math.max(least, RETRY_MAX_MS));
      }),
    );
    expect(backoff_ms(3, 0.999_999)).toBe(1000);
  });
});
