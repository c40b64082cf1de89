import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { treeFrame, tailFrame, ValuesReader } from "../src/stream/frames";
import type { ViewRequest } from "../src/stream/messages";
import { Model } from "../src/stream/model";
import { planOf } from "../src/stream/plan";
import { ReducedSeries, TopicSeries } from "../src/store/series";
import { REDUCED_POINTS_MAX } from "../src/app/limits";
import { rate } from "../src/time/format";
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

describe("a moment that has passed", () => {
  const T = START_MS + 60_000;
  const states = [
    { ...record("a/fast", 59, 59), interval_s: 1, count: 60, age_ms: 1000 },
    { ...record("a/slow", 30, 30), interval_s: 15, count: 3, age_ms: 30_000 },
    { ...record("b/silent", 2, 2), interval_s: 1, count: 3, age_ms: 58_000 },
  ];

  function pastModel(): Model {
    const model = new Model(planOf([]));
    model.takeState(states);
    model.isThen(T, new Model(planOf([])).treeView);
    return model;
  }

  test("shows values, ages and usual rates of then; who was silent has no rate", () => {
    const rows = treeFrame(pastModel(), VIEW, T).rows;
    expect(rows.map((row) => [row.path, row.value, Number(row.rate.toFixed(2)), T - row.lastTime_ms])).toEqual([
      ["a", "", 1.07, 1000],
      ["a/fast", "59", 1, 1000],
      ["a/slow", "30", 0.07, 30_000],
      ["b", "", 0, 58_000],
      ["b/silent", "2", 0, 58_000],
    ]);
  });

  test("a rate that nobody knows is not called none, until the tail knows how often the topic comes", () => {
    const model = new Model(planOf([]));
    model.takeState([record("a/x", 59, 59), record("b", 50, 50)]);
    model.isThen(T, new Model(planOf([])).treeView);
    const rates = (): string[] => treeFrame(model, VIEW, T).rows.map((row) => rate(row.rate));
    expect(rates()).toEqual(["–", "–", "–"]);
    model.takeTailHistory([57, 58, 59].map((offset) => record("a/x", offset, offset)), T);
    expect(rates()).toEqual(["1 /s", "1 /s", "–"]);
  });

  test("the tail holds what the log has until then, also of topics that nobody described", () => {
    const model = pastModel();
    model.takeTailHistory([record("c/new", 58, "x"), record("a/fast", 59, 59)], T);
    expect(tailFrame(model, VIEW, T).rows.map((row) => (row.kind === "message" ? row.text : ""))).toEqual(["59", "x"]);
  });

  test("what is known of fields does not depend on whether tail or topics come first", () => {
    const history = [...Array(30).keys()].map((offset) => record("a/x", 30 + offset, offset % 2 ? "on" : "off"));
    const state = [record("a/x", 59, "on")];
    const [tailFirst, topicsFirst] = [new Model(planOf([])), new Model(planOf([]))];
    const { treeView } = new Model(planOf([]));
    tailFirst.takeTailHistory(history, T);
    tailFirst.takeState(state);
    tailFirst.isThen(T, treeView);
    topicsFirst.takeState(state);
    topicsFirst.isThen(T, treeView);
    topicsFirst.takeTailHistory(history, T);
    for (const model of [tailFirst, topicsFirst]) {
      expect(model.profiles.get("a/x")?.fields.get("")?.kind).toBe("boolean");
      expect(treeFrame(model, VIEW, T).rows.map((row) => rate(row.rate))).toEqual(["1 /s", "1 /s"]);
    }
  });

  test("a replay takes each event that comes after, once", () => {
    const model = pastModel();
    for (const offset of [59, 60, 61, 60]) model.take(record("a/fast", offset, offset), 100, false);
    expect(model.received).toBe(2);
    expect(treeFrame(model, VIEW, T + 1000).rows.find((row) => row.path === "a/fast")?.value).toBe("61");
  });

  test("a replay that begins with nothing opens the tree down to its first message", () => {
    const model = new Model(planOf([]));
    model.isThen(T, new Model(planOf([])).treeView);
    model.take(record("a/b/c", 61, 61), 100, false);
    expect(treeFrame(model, VIEW, T + 1000).rows.map((row) => row.path)).toEqual(["a", "a/b", "a/b/c"]);
  });

  test("the same levels are open as before, and closing one there closes it everywhere", () => {
    const live = liveModel();
    live.take(record("a/fast", 1, 1), 100, false);
    live.take(record("b/silent", 2, 2), 100, false);
    live.treeView.setOpen("a", true);
    const model = new Model(planOf([]));
    model.takeState(states);
    model.isThen(T, live.treeView);
    const paths = (which: Model): string[] => treeFrame(which, VIEW, T).rows.map((row) => row.path);
    expect(paths(model)).toEqual(["a", "a/fast", "a/slow", "b"]);
    model.treeView.setOpen("a", false);
    live.treeView.setOpen("b", true);
    expect(paths(live)).toEqual(["a", "b", "b/silent"]);
  });
});

describe("more points than a plot holds", () => {
  test("keep lowest and highest value, in order and within the limit", () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: -1000, max: 1000 }), { minLength: 1, maxLength: 4 * REDUCED_POINTS_MAX }), (values) => {
        const reduced = new ReducedSeries();
        values.forEach((value, index) => reduced.push(START_MS + index, value));
        expect(reduced.times.length).toBeLessThanOrEqual(REDUCED_POINTS_MAX);
        expect(Math.min(...reduced.low)).toBe(Math.min(...values));
        expect(Math.max(...reduced.high)).toBe(Math.max(...values));
        expect(reduced.last.at(-1)).toBe(values.at(-1));
        expect(reduced.times).toEqual([...reduced.times].sort((left, right) => left - right));
        for (const column of [reduced.last, reduced.low, reduced.high]) expect(column).toHaveLength(reduced.times.length);
      }),
      { numRuns: 30 },
    );
  });

  test("leave the ring of a topic for what is before it, without a hole", () => {
    const series = new TopicSeries();
    for (let offset = 0; offset < 12_000; offset += 1) series.add(record("a", offset, { n: offset }), START_MS + offset * 1000);
    const reduced = series.reduced.get("/n");
    expect(reduced?.low[0]).toBe(0);
    expect(reduced?.last.at(-1)).toBe((series.columns.get("/n")?.[0] as number) - 1);
  });

  test("come to the page before the others, as lowest, highest and last", () => {
    const model = liveModel();
    model.take(record("a", 100, 5), 100, false);
    const series = model.series.show("a");
    series.add(record("a", 100, 5), START_MS + 100_000);
    const reduced = new ReducedSeries();
    reduced.add({ time: [new Date(START_MS).toISOString()], min: [1], max: [9], last: [4], count: [20], complete: true });
    series.putReduced("", reduced);
    const points = new ValuesReader().frame(model, { ...VIEW, selected: "a" }).fields[0]?.points;
    expect(points).toEqual({ isReset: true, times: [START_MS, START_MS + 100_000], values: [4, 5], low: [1], high: [9] });
  });
});
