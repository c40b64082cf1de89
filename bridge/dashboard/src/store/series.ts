/**
 * Points of the topics that are plotted: one column of times and one for each field, filled from history and then live.
 * Pure. A topic's points know their position, so that history and live join without gap or repeat. Numbers that do not
 * fit the ring any more are kept as lowest, highest and last value of a few messages each.
 */
import type { RecordData, SeriesAnswer } from "../api/types";
import { PLOT_POINTS_MAX, PLOT_TOPICS_MAX, REDUCED_POINTS_MAX } from "../app/limits";
import { plotted } from "../payload/classify";
import { eachField, type Scalar } from "../payload/fields";
import { TopicPositions } from "./positions";
import { keyOf } from "./tail";

const SLACK = 512; // trimmed in steps, since removing the first entry of an array moves all others

/** Points that stand for several messages each, oldest first. */
export class ReducedSeries {
  readonly times: number[] = [];
  readonly last: number[] = [];
  readonly low: number[] = [];
  readonly high: number[] = [];

  add(answer: SeriesAnswer): void {
    for (let index = 0; index < answer.time.length; index += 1) {
      const last = answer.last[index] ?? Number.NaN;
      this.push(Date.parse(answer.time[index] ?? ""), last, answer.min[index] ?? last, answer.max[index] ?? last);
    }
  }

  push(time_ms: number, last: number, low = last, high = last): void {
    if (Number.isNaN(time_ms) || Number.isNaN(last)) return;
    this.times.push(time_ms);
    this.last.push(last);
    this.low.push(low);
    this.high.push(high);
    if (this.times.length > REDUCED_POINTS_MAX) this.halve();
  }

  /** Each two neighbours become one: the same span of time in half as many points. */
  private halve(): void {
    const half = this.times.length >> 1;
    for (let index = 0; index < half; index += 1) {
      const [first, second] = [2 * index, 2 * index + 1];
      this.times[index] = this.times[first] ?? 0;
      this.last[index] = this.last[second] ?? 0;
      this.low[index] = Math.min(this.low[first] ?? 0, this.low[second] ?? 0);
      this.high[index] = Math.max(this.high[first] ?? 0, this.high[second] ?? 0);
    }
    const isOdd = this.times.length % 2 === 1;
    for (const column of [this.times, this.last, this.low, this.high]) {
      const newest = column.at(-1);
      column.length = half;
      if (isOdd && newest !== undefined) column.push(newest);
    }
  }
}

export class TopicSeries {
  readonly times: number[] = [];
  readonly keys: string[] = [];
  readonly columns = new Map<string, (Scalar | undefined)[]>();
  /** What is before the first point, for fields that are numbers. */
  readonly reduced = new Map<string, ReducedSeries>();
  /** Rises when points were put in before others; readers then start again. */
  version = 1;
  /** Points ever added since `version` rose; the last of them is the last entry of `times`. */
  added = 0;
  historyState: "none" | "loading" | "loaded" | "failed" = "none";
  historyFault = "";
  private readonly positions = new TopicPositions();

  add(record: RecordData, time_ms: number): void {
    if (!this.positions.take(record)) return; // history was ahead of the stream
    if (record.encoding === "null") return; // no value, so no point
    this.push(keyOf(record), time_ms, record.payload);
    this.added += 1;
    if (this.times.length > PLOT_POINTS_MAX + SLACK) this.trim();
  }

  /** History in any order; what is there already stays once. */
  addHistory(records: readonly RecordData[]): void {
    const known = new Set(this.keys);
    const fresh = records.filter((record) => !known.has(keyOf(record)) && record.encoding !== "null");
    if (fresh.length === 0) return;
    for (const record of [...fresh].sort((left, right) => left.offset - right.offset)) this.positions.take(record);
    const old = this.keys.map((key, index) => ({ key, time: this.times[index] ?? 0, index, record: null as RecordData | null }));
    const all = [
      ...fresh.map((record) => ({ key: keyOf(record), time: Date.parse(record.time), index: record.offset, record: record as RecordData | null })),
      ...old,
    ];
    // Records of one millisecond: history before live, and by offset among themselves.
    all.sort((left, right) => left.time - right.time || Number(!left.record) - Number(!right.record) || left.index - right.index);
    const columns = new Map([...this.columns].map(([pointer, column]) => [pointer, column.slice()]));
    this.clear();
    for (const point of all.slice(-PLOT_POINTS_MAX)) {
      if (point.record) this.push(point.key, point.time, point.record.payload);
      else {
        this.times.push(point.time);
        this.keys.push(point.key);
        for (const [pointer, column] of columns) this.put(pointer, column[point.index]);
        this.even();
      }
    }
    this.version += 1;
    this.added = this.times.length;
  }

  putReduced(pointer: string, reduced: ReducedSeries): void {
    this.reduced.set(pointer, reduced);
    this.version += 1;
    this.added = this.times.length;
  }

  /** The points that came after the first `added` ones, as indexes from `start`. */
  startOf(added: number): number {
    return Math.max(0, this.times.length - (this.added - added));
  }

  private push(key: string, time_ms: number, payload: unknown): void {
    this.times.push(time_ms);
    this.keys.push(key);
    eachField(payload, (pointer, value) => this.put(pointer, value));
    this.even();
  }

  private put(pointer: string, value: Scalar | undefined): void {
    if (value === undefined) return;
    let column = this.columns.get(pointer);
    if (!column) {
      column = new Array<Scalar | undefined>(this.times.length - 1).fill(undefined);
      this.columns.set(pointer, column);
    }
    if (column.length < this.times.length) column.push(value);
  }

  private even(): void {
    for (const column of this.columns.values()) if (column.length < this.times.length) column.push(undefined);
  }

  private clear(): void {
    this.times.length = 0;
    this.keys.length = 0;
    this.columns.clear();
  }

  private trim(): void {
    const drop = this.times.length - PLOT_POINTS_MAX;
    this.reduce(drop);
    this.times.splice(0, drop);
    this.keys.splice(0, drop);
    for (const column of this.columns.values()) column.splice(0, drop);
  }

  /** Numbers among the first `count` points go to what is before the first point. */
  private reduce(count: number): void {
    for (const [pointer, column] of this.columns) {
      let reduced = this.reduced.get(pointer);
      for (let index = 0; index < count; index += 1) {
        const value = plotted(column[index]);
        if (Number.isNaN(value)) continue;
        if (!reduced) this.reduced.set(pointer, (reduced = new ReducedSeries()));
        reduced.push(this.times[index] ?? 0, value);
      }
    }
  }
}

/** The plotted topics; the one that was shown longest ago goes when there are too many. */
export class SeriesStore {
  private readonly byTopic = new Map<string, TopicSeries>();

  get(topic: string): TopicSeries | undefined {
    return this.byTopic.get(topic);
  }

  /** Marks the topic as shown now. */
  show(topic: string): TopicSeries {
    let series = this.byTopic.get(topic);
    if (series) this.byTopic.delete(topic);
    else series = new TopicSeries();
    this.byTopic.set(topic, series);
    if (this.byTopic.size > PLOT_TOPICS_MAX) {
      const oldest = this.byTopic.keys().next().value;
      if (oldest !== undefined) this.byTopic.delete(oldest);
    }
    return series;
  }

  clear(): void {
    this.byTopic.clear();
  }
}
