/**
 * Fills series and tail from the log: a small queue of requests, at most two at a time, thrown away on another filter.
 */
import type { ApiClient } from "../api/client";
import type { RecordData } from "../api/types";
import {
  CLASSIFY_MESSAGES,
  HISTORY_FIRST_PAGE,
  HISTORY_PAGE,
  HISTORY_PAGES_MAX,
  HISTORY_REQUESTS_MAX,
  PLOT_POINTS_MAX,
  PLOTS_MAX,
  TAIL_HISTORY,
  TAIL_HISTORY_STREAMS_MAX,
} from "../app/limits";
import type { Model } from "./model";

export class HistoryLoader {
  private waiting: (() => Promise<void>)[] = [];
  private running = 0;
  private abort = new AbortController();
  /** From when on a topic's history was asked for; a wider window asks again. */
  private readonly from_ms = new Map<string, number>();

  constructor(
    private readonly api: ApiClient,
    private readonly changed: () => void,
  ) {}

  /** Stops what runs and forgets what waits. */
  reset(): void {
    this.abort.abort();
    this.abort = new AbortController();
    this.waiting = [];
    this.from_ms.clear();
  }

  /** Loads the points of a shown topic back to `from_ms`, unless that was done. */
  wantSeries(model: Model, topic: string, stream: string, from_ms: number): void {
    const asked = this.from_ms.get(topic);
    const series = model.series.show(topic);
    if (series.historyState === "loading" || this.waiting.length >= PLOTS_MAX) return;
    // A window that moves with the clock is the same window.
    if (series.historyState !== "none" && asked !== undefined && from_ms >= asked - 1000) return;
    series.historyState = "loading";
    this.from_ms.set(topic, from_ms);
    this.enqueue(async (signal) => {
      try {
        let isFirst = true;
        for await (const records of this.pages(stream, topic, from_ms, signal)) {
          if (model.series.get(topic) !== series) return;
          series.addHistory(records);
          if (isFirst) model.learn(topic, records.slice(0, CLASSIFY_MESSAGES).reverse());
          isFirst = false;
          this.changed();
        }
        series.historyState = "loaded";
      } catch (error) {
        if (signal.aborted) return;
        series.historyState = "failed";
        series.historyFault = error instanceof Error ? error.message : String(error);
      }
      this.changed();
    });
  }

  /** Asks again for a topic whose history failed. */
  retry(model: Model, topic: string): void {
    const series = model.series.get(topic);
    if (series?.historyState === "failed") series.historyState = "none";
    this.from_ms.delete(topic);
  }

  /** The newest records of all streams, for the tail. */
  loadTail(model: Model): void {
    model.tailHistory = "loading";
    this.enqueue(async (signal) => {
      try {
        const streams = (await this.api.streams(signal)).filter((stream) => stream.records !== 0);
        const records: RecordData[] = [];
        for (const stream of streams.slice(0, TAIL_HISTORY_STREAMS_MAX)) {
          const answer = await this.api.latestRecords(stream.name, model.plan.topicFilters, TAIL_HISTORY, { signal });
          records.push(...answer.records);
        }
        model.takeTailHistory(records);
        model.tailHistory = "loaded";
      } catch (error) {
        if (signal.aborted) return;
        model.tailHistory = "failed";
        model.tailFault = error instanceof Error ? error.message : String(error);
      }
      this.changed();
    });
  }

  /** Pages of a topic's records, newest first; the first is small, so that a plot has its right end at once. */
  private async *pages(stream: string, topic: string, from_ms: number, signal: AbortSignal): AsyncGenerator<RecordData[]> {
    let cursor: string | undefined;
    let count = 0;
    for (let page = 0; page < HISTORY_PAGES_MAX && count < PLOT_POINTS_MAX; page += 1) {
      const limit = Math.min(page === 0 ? HISTORY_FIRST_PAGE : HISTORY_PAGE, PLOT_POINTS_MAX - count);
      const from = new Date(from_ms).toISOString();
      const answer = await this.api.latestRecords(stream, [topic], limit, cursor === undefined ? { from, signal } : { from, cursor, signal });
      count += answer.records.length;
      yield answer.records;
      if (answer.complete || !answer.cursor) break;
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
