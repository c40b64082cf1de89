import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { treeFrame, tailFrame, ValuesReader } from "../src/stream/frames";
import type { ViewRequest } from "../src/stream/messages";
import { Model } from "../src/stream/model";
import { planOf } from "../src/stream/plan";
import { record, START_MS } from "./records";

const VIEW: ViewRequest = {
  tree: { first: 0, count: 80 },
  tail: { first: 0, count: 80, heldAt: null, isWholeTail: false },
  selected: "",
  sort: "name",
  window_ms: 900_000,
};

function liveModel(): Model {
  const model = new Model(planOf([]));
  model.live();
  return model;
}

describe("model", () => {
  test("a reader cut anywhere sees each offset once", () => {
    fc.assert(
      fc.property(fc.array(fc.nat(30), { maxLength: 8 }), (cuts) => {
        const model = liveModel();
        let next = 0;
        for (const cut of [...cuts, 30]) {
          // The server goes on at or before the place of the cut: conflated values may come again.
          for (let offset = Math.max(0, next - 3); offset <= cut; offset += 1) model.take(record("a/b", offset, offset), 100, false);
          next = Math.max(next, cut + 1);
        }
        expect(model.received).toBe(31);
        const { rows } = tailFrame(model, VIEW, START_MS);
        expect(rows.map((row) => (row.kind === "message" ? row.text : ""))).toEqual([...Array(31).keys()].reverse().map(String));
      }),
    );
  });

  test("history and live join without gap or repeat, wherever they meet", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 40 }), fc.integer({ min: 1, max: 40 }), fc.integer({ min: 1, max: 40 }), (historyEnd, liveStart, arrival) => {
        fc.pre(liveStart <= historyEnd + 1);
        const model = liveModel();
        const reader = new ValuesReader();
        const history = [...Array(historyEnd + 1).keys()].map((offset) => record("a", offset, offset)).reverse();
        const times: number[] = [];
        const follow = (): void => {
          const points = reader.frame(model, { ...VIEW, selected: "a" }).fields[0]?.points;
          if (points?.isReset) times.length = 0;
          times.push(...(points?.times ?? []));
        };
        for (let offset = liveStart; offset <= 50; offset += 1) {
          if (offset === liveStart + arrival) model.series.get("a")?.addHistory(history);
          model.take(record("a", offset, offset), 100, false);
          if (offset === liveStart) model.series.show("a").add(record("a", offset, offset), START_MS + offset * 1000);
          follow();
        }
        if (liveStart + arrival > 50) model.series.get("a")?.addHistory(history);
        follow();
        expect(times).toEqual([...Array(51).keys()].map((offset) => START_MS + offset * 1000));
      }),
    );
  });

  test("a gap is one row of the tail with the times around it", () => {
    const model = liveModel();
    model.take(record("a", 1, 1), 100, false);
    model.gap({ from: "c1", to: "c5", lost: 4, reason: "overflow" }, START_MS + 5000);
    model.take(record("a", 6, 6), 100, false);
    model.take(record("a", 7, 7), 100, false);
    const rows = tailFrame(model, VIEW, START_MS).rows.filter((row) => row.kind === "gap");
    expect(rows).toHaveLength(1);
    expect(model.gaps).toEqual([{ id: 1, from_ms: START_MS + 1000, to_ms: START_MS + 6000, lost: 4, reason: "overflow" }]);
  });

  test("the first message of an empty server is told with its sender, once", () => {
    const model = liveModel();
    expect(treeFrame(model, VIEW, START_MS).isEmpty).toBe(true);
    model.take(record("a/b", 1, 1, { client_id: "esp32-1" }), 100, false);
    model.take(record("a/b", 2, 2, { client_id: "other" }), 100, false);
    expect(model.firstMessage?.clientId).toBe("esp32-1");
    expect(treeFrame(model, VIEW, START_MS).rows.map((row) => row.path)).toEqual(["a", "a/b"]);
  });

  test("a server with a snapshot is not empty", () => {
    const model = new Model(planOf([]));
    model.take(record("a", 1, 1), 100, true);
    model.live();
    model.take(record("a", 2, 2), 100, false);
    expect(model.firstMessage).toBeNull();
  });

  test("words and clients of the filter are looked at here", () => {
    const model = new Model(planOf(["TEMP", "client:p1"]));
    expect(model.take(record("a/temp", 1, 1), 100, false)).toBe(true);
    expect(model.take(record("a/hum", 2, 1), 100, false)).toBe(false);
    expect(model.take(record("a/temp", 3, 1, { client_id: "p2" }), 100, false)).toBe(false);
  });

  test("a tail held at a row counts what is newer and does not move", () => {
    const model = liveModel();
    for (let offset = 0; offset < 10; offset += 1) model.take(record("a", offset, offset), 100, false);
    const heldAt = tailFrame(model, VIEW, START_MS).rows[0]?.number ?? 0;
    for (let offset = 10; offset < 15; offset += 1) model.take(record("a", offset, offset), 100, false);
    const frame = tailFrame(model, { ...VIEW, tail: { ...VIEW.tail, heldAt } }, START_MS);
    expect(frame.newer).toBe(5);
    expect(frame.rows[0]?.number).toBe(heldAt);
  });

  test("history of the tail comes before what is live, each record once", () => {
    const model = liveModel();
    for (let offset = 5; offset < 8; offset += 1) model.take(record("a", offset, offset), 100, false);
    model.takeTailHistory([...Array(7).keys()].map((offset) => record("a", offset, offset)).reverse());
    const { rows } = tailFrame(model, VIEW, START_MS);
    expect(rows.map((row) => (row.kind === "message" ? row.text : ""))).toEqual(["7", "6", "5", "4", "3", "2", "1", "0"]);
  });
});
