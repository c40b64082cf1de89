import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { SseParser, type ServerEvent } from "../src/stream/sse-parser";

function parse(pieces: string[]): { events: ServerEvent[]; parser: SseParser } {
  const parser = new SseParser();
  return { events: pieces.flatMap((piece) => parser.feed(piece)), parser };
}

function cutAt(text: string, places: number[]): string[] {
  const cuts = [...new Set(places.map((place) => place % (text.length + 1)))].sort((left, right) => left - right);
  return [...cuts, text.length].map((end, index) => text.slice(index ? cuts[index - 1] : 0, end));
}

const SAMPLE =
  "retry: 1000\n\n" +
  ':\n\nevent: snapshot\ndata: {"topic":"a"}\n\n' +
  'event: live\r\nid: c1\r\ndata: {"cursor":"c1"}\r\n\r\n' +
  'id: c2\nevent: message\ndata: {"topic":"ä/ö"}\n\n' +
  "id: c3\n\n" +
  "data: two\ndata: lines\n\n";

describe("SseParser", () => {
  test("reads names, data, ids and the wish for a retry", () => {
    const { events, parser } = parse([SAMPLE]);
    expect(events).toEqual([
      { name: "snapshot", data: '{"topic":"a"}' },
      { name: "live", data: '{"cursor":"c1"}' },
      { name: "message", data: '{"topic":"ä/ö"}' },
      { name: "message", data: "two\nlines" },
    ]);
    expect(parser.lastEventId).toBe("c3");
    expect(parser.retry_ms).toBe(1000);
  });

  test("any split of the text gives the same events", () => {
    const whole = parse([SAMPLE]);
    fc.assert(
      fc.property(fc.array(fc.nat()), (places) => {
        const { events, parser } = parse(cutAt(SAMPLE, places));
        expect(events).toEqual(whole.events);
        expect(parser.lastEventId).toBe("c3");
      }),
    );
  });

  test("an id alone moves the position and dispatches nothing", () => {
    const { events, parser } = parse(["id: c9\n\n"]);
    expect(events).toEqual([]);
    expect(parser.lastEventId).toBe("c9");
  });

  test("an event that is cut off leaves the position where it was", () => {
    const { events, parser } = parse(["id: c1\ndata: x\n\n", "id: c2\ndata: y\n"]);
    expect(events).toHaveLength(1);
    expect(parser.lastEventId).toBe("c1");
  });
});
