import { describe, expect, test } from "vitest";
import { ApiClient } from "../src/api/client";
import { PAUSE_EVENTS_MAX } from "../src/app/limits";
import { LiveSide } from "../src/stream/live-side";
import type { Part } from "../src/stream/messages";
import { planOf } from "../src/stream/plan";
import { ServerClock } from "../src/time/clock";
import { record, START_MS } from "./records";

const NOWHERE = new ApiClient("http://127.0.0.1:9/api/v1/");

function sideWith(count: number): { side: LiveSide; marked: Part[]; send: (offset: number) => void } {
  const marked: Part[] = [];
  const side = new LiveSide(NOWHERE, 15, planOf([]), new ServerClock(), (...parts) => marked.push(...parts));
  const send = (offset: number): void => side.event({ name: "message", data: JSON.stringify(record("a", offset, offset)) });
  for (let offset = 0; offset < count; offset += 1) send(offset);
  marked.length = 0;
  return { side, marked, send };
}

describe("a pause", () => {
  test("changes nothing on the screen and counts what comes", () => {
    const { side, marked, send } = sideWith(3);
    side.pause(START_MS + 2500);
    for (let offset = 3; offset < 10; offset += 1) send(offset);
    expect(side.model.received).toBe(3);
    expect(side.newer).toBe(7);
    expect(new Set(marked)).toEqual(new Set(["time"]));
    expect(side.moment_ms()).toBe(START_MS + 2500);
  });

  test("going on shows all of it, in order and once", () => {
    const { side, send } = sideWith(3);
    side.pause(START_MS);
    for (const offset of [3, 4, 4, 5]) send(offset);
    side.resume();
    send(6);
    expect(side.model.received).toBe(7);
    expect(side.model.tail.window(0, 10, null).rows.map((row) => (row.kind === "message" ? row.record.offset : -1))).toEqual([6, 5, 4, 3, 2, 1, 0]);
    expect(side.newer).toBe(0);
  });

  test("with more than is held, all of it comes from the log", () => {
    const { side, send } = sideWith(1);
    side.pause(START_MS);
    for (let offset = 1; offset < PAUSE_EVENTS_MAX + 100; offset += 1) send(offset);
    expect(side.newer).toBe(PAUSE_EVENTS_MAX + 99);
    side.resume();
    expect(side.stream.state.phase).toBe("connecting");
    expect(side.stream.state.isFresh).toBe(true);
    side.stream.input({ kind: "stop" });
  });

  test("a stream that began anew meanwhile is shown when the page goes on", () => {
    const { side, send } = sideWith(3);
    side.pause(START_MS);
    side.opened(true);
    send(3);
    expect(side.model.received).toBe(3);
    side.resume();
    expect(side.stream.state.phase).toBe("connecting");
    side.stream.input({ kind: "stop" });
  });
});
