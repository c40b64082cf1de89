/**
 * Fills series and tail from the log: a small queue of requests, at most two at a time, thrown away on another filter.
 * Times end with a moment, that one included, or with what is there now.
 */
import { ApiError, faultOf, type ApiClient } from "../api/client";
import type { RecordData, SeriesAnswer } from "../api/types";
import {
  CLASSIFY_MESSAGES,
  HISTORY_FIRST_PAGE,
  HISTORY_PAGE,
  HISTORY_PAGES_MAX,
  HISTORY_REQUESTS_MAX,
  PLOT_POINTS_MAX,
  PLOTS_MAX,
  SERIES_POINTS,
  SERIES_REQUESTS_MAX,
  TAIL_HISTORY,
  TAIL_HISTORY_STREAMS_MAX,
} from "../app/limits";
import { isNumeric } from "../store/profiles";
import { ReducedSeries, type TopicSeries } from "../store/series";
import type { Model } from "./model";
import type { Plan } from "./plan";

/** The points of a topic that are wanted: the fields on screen, and the time that they are to show. */
export interface WantedSeries {
  topic: string;
  stream: string;
  pointers: string[];
  from_ms: number;
  /** The last moment that belongs to it; null for now. */
  to_ms: number | null;
  /** The server reduces what one page of records does not hold, rather than what the ring of points does not. */
  isBrief: boolean;
}

interface Asked {
  from_ms: number;
  pointers: Set<string>;
}

export class HistoryLoader {
  private waiting: (() => Promise<void>)[] = [];
  private running = 0;
  private abort = new AbortController();
  /** What of a topic's history was asked for; a wider window or another field asks again. */
  private readonly asked = new Map<string, Asked>();

  constructor(
    private readonly api: ApiClient,
    private readonly changed: () => void,
  ) {}

  /** Stops what runs and forgets what waits. */
  reset(): void {
    this.abort.abort();
    this.abort = new AbortController();
    this.waiting = [];
    this.asked.clear();
  }

  /** Loads the points of a shown topic back to `from_ms`, unless that was done. */
  wantSeries(model: Model, wanted: WantedSeries): void {
    const { topic, from_ms, pointers } = wanted;
    const series = model.series.show(topic);
    if (series.historyState === "loading" || this.waiting.length >= PLOTS_MAX) return;
    const asked = this.asked.get(topic);
    const isAsked = asked !== undefined && from_ms >= asked.from_ms - 1000 && pointers.every((pointer) => asked.pointers.has(pointer));
    // A window that moves with the clock is the same window.
    if (series.historyState !== "none" && isAsked) return;
    series.historyState = "loading";
    this.asked.set(topic, { from_ms, pointers: new Set([...(asked?.pointers ?? []), ...pointers]) });
    this.enqueue(async (signal) => {
      try {
        await this.loadSeries(model, series, wanted, signal);
        series.historyState = "loaded";
      } catch (error) {
        if (signal.aborted) return;
        series.historyState = "failed";
        series.historyFault = faultOf(error);
      }
      this.changed();
    });
  }

  /** Records as far as they are wanted; of what is before them the server says lowest, highest and last values. */
  private async loadSeries(model: Model, series: TopicSeries, wanted: WantedSeries, signal: AbortSignal): Promise<void> {
    const { topic } = wanted;
    let canReduce = true;
    let isFirst = true;
    for await (const { records, isLast } of this.pages(wanted, signal)) {
      if (model.series.get(topic) !== series) return;
      series.addHistory(records);
      if (isFirst) model.learn(topic, records.slice(0, CLASSIFY_MESSAGES).reverse());
      isFirst = false;
      this.changed();
      if (isLast) return;
      const profile = model.profiles.get(topic);
      // A state has no mean: its changes are in the records only.
      const isAllNumeric = wanted.pointers.every((pointer) => isNumeric(profile?.fields.get(pointer)?.kind));
      if (wanted.isBrief && isAllNumeric && canReduce) {
        canReduce = await this.reduce(model, series, wanted, signal);
        if (canReduce) return;
      }
    }
    if (canReduce) await this.reduce(model, series, wanted, signal);
  }

  /** The points before the records that are there, as many as a plot has pixels for. False when this server has none. */
  private async reduce(model: Model, series: TopicSeries, wanted: WantedSeries, signal: AbortSignal): Promise<boolean> {
    // Messages of one millisecond may be on both sides of where the records end: better twice in a band than missing.
    const end_ms = (series.times[0] ?? wanted.to_ms ?? wanted.from_ms) + 1;
    const profile = model.profiles.get(wanted.topic);
    for (const pointer of wanted.pointers) {
      if (!isNumeric(profile?.fields.get(pointer)?.kind)) continue;
      const reduced = new ReducedSeries();
      let from = new Date(wanted.from_ms).toISOString();
      for (let request = 0; request < SERIES_REQUESTS_MAX; request += 1) {
        let answer: SeriesAnswer;
        try {
          answer = await this.api.series(wanted.topic, pointer, from, new Date(end_ms).toISOString(), SERIES_POINTS, signal);
        } catch (error) {
          if (error instanceof ApiError && error.isNotAvailable) return false;
          throw error;
        }
        reduced.add(answer);
        if (answer.complete || !answer.scanned_to || answer.scanned_to <= from) break;
        from = answer.scanned_to;
      }
      series.putReduced(pointer, reduced);
      this.changed();
    }
    return true;
  }

  /** Asks again for a topic whose history failed. */
  retry(model: Model, topic: string): void {
    const series = model.series.get(topic);
    if (series?.historyState === "failed") series.historyState = "none";
    this.asked.delete(topic);
  }

  /** The newest records of all streams up to a moment, for the tail. */
  loadTail(model: Model, to_ms: number | null): void {
    model.tailHistory = "loading";
    this.enqueue(async (signal) => {
      try {
        const streams = (await this.api.streams(signal)).filter((stream) => stream.records !== 0);
        const records: RecordData[] = [];
        for (const stream of streams.slice(0, TAIL_HISTORY_STREAMS_MAX)) records.push(...(await this.newest(model.plan, stream.name, to_ms, signal)));
        model.takeTailHistory(records, to_ms);
        model.tailHistory = "loaded";
      } catch (error) {
        if (signal.aborted) return;
        model.tailHistory = "failed";
        model.tailFault = faultOf(error);
      }
      this.changed();
    });
  }

  /** The newest records of a stream that the plan asks for; a server that cannot choose by client gives those of all. */
  private async newest(plan: Plan, stream: string, to_ms: number | null, signal: AbortSignal): Promise<RecordData[]> {
    const more = { ...until(to_ms), signal };
    const clientId = plan.clientIds.length === 1 ? plan.clientIds[0] : undefined;
    if (clientId !== undefined) {
      try {
        return (await this.api.latestRecords(stream, plan.topicFilters, TAIL_HISTORY, { ...more, clientId })).records;
      } catch (error) {
        if (!(error instanceof ApiError && error.isNotAvailable)) throw error;
      }
    }
    return (await this.api.latestRecords(stream, plan.topicFilters, TAIL_HISTORY, more)).records;
  }

  /** Pages of a topic's records, newest first; the first is small, so that a plot has its right end at once. */
  private async *pages({ stream, topic, from_ms, to_ms }: WantedSeries, signal: AbortSignal): AsyncGenerator<{ records: RecordData[]; isLast: boolean }> {
    let cursor: string | undefined;
    let count = 0;
    for (let page = 0; page < HISTORY_PAGES_MAX && count < PLOT_POINTS_MAX; page += 1) {
      const limit = Math.min(page === 0 ? HISTORY_FIRST_PAGE : HISTORY_PAGE, PLOT_POINTS_MAX - count);
      const from = new Date(from_ms).toISOString();
      const more = { from, ...until(to_ms), signal };
      const answer = await this.api.latestRecords(stream, [topic], limit, cursor === undefined ? more : { ...more, cursor });
      count += answer.records.length;
      const isLast = answer.complete || !answer.cursor;
      yield { records: answer.records, isLast };
      if (isLast || !answer.cursor) break;
      cursor = answer.cursor;
    }
  }

  private enqueue(task: (signal: AbortSignal) => Promise<void>): void {
    const { signal } = this.abort;
    this.waiting.push(() => task(signal));
    this.run();
  }

  private run(): void {
    while (this.running < HISTORY_REQUESTS_MAX) {
      const task = this.waiting.shift();
      if (!task) return;
      this.running += 1;
      void task().finally(() => {
        this.running -= 1;
        this.run();
      });
    }
  }
}

/** `to` of the API is the first moment that does not belong to the range. */
function until(to_ms: number | null): { to?: string } {
  return to_ms === null ? {} : { to: new Date(to_ms + 1).toISOString() };
}
