/**
 * What is now: the page's stream of live events and the model that they fill. While the page is paused events are held
 * back, so that nothing on the screen can change; while a replay runs the stream sleeps and its position is kept.
 */
import type { ApiClient } from "../api/client";
import type { GapData, ReaderInfo, RecordData } from "../api/types";
import { PAUSE_CHARS_MAX, PAUSE_EVENTS_MAX } from "../app/limits";
import type { ServerClock } from "../time/clock";
import { EventStream, type StreamOwner } from "./event-stream";
import { HistoryLoader } from "./history";
import type { Part } from "./messages";
import { Model } from "./model";
import { planOf, type Plan } from "./plan";
import type { ServerEvent } from "./sse-parser";

export class LiveSide implements StreamOwner {
  readonly model: Model;
  readonly history: HistoryLoader;
  readonly stream: EventStream;
  delay_ms: number | null = null;
  conflatedLately = 0;
  /** Messages held back since the pause. */
  newer = 0;
  private held: ServerEvent[] = [];
  private heldChars = 0;
  private pausedAt_ms: number | null = null;
  /** The stream began anew during the pause: what is held back does not follow what is on the screen. */
  private hasBroken = false;
  private conflated = 0;
  private isOtherFilter = true;
  private wasSkipped = false;

  constructor(
    api: ApiClient,
    heartbeat_s: number,
    public plan: Plan,
    private readonly clock: ServerClock,
    private readonly mark: (...parts: Part[]) => void,
  ) {
    this.model = new Model(plan);
    this.history = new HistoryLoader(api, () => mark("tail", "values", "tree"));
    this.stream = new EventStream(api, heartbeat_s, this);
  }

  start(): void {
    this.stream.input({ kind: "start" });
  }

  /** Another filter: everything begins anew, also what is held back. */
  filter(terms: string[]): void {
    this.plan = planOf(terms);
    this.reload();
  }

  /** The right edge of plots and the moment of ages. */
  moment_ms(): number {
    return this.pausedAt_ms ?? this.clock.now(Date.now());
  }

  get isPaused(): boolean {
    return this.pausedAt_ms !== null;
  }

  pause(at_ms: number): void {
    this.pausedAt_ms = at_ms;
    this.newer = 0;
  }

  /** Everything that was held back comes now; when it was too much, the log has it. */
  resume(): void {
    if (this.pausedAt_ms === null) return;
    const { held } = this;
    const isTooMuch = this.hasOverflowed || this.hasBroken;
    this.pausedAt_ms = null;
    this.held = [];
    this.heldChars = 0;
    this.newer = 0;
    this.hasBroken = false;
    if (isTooMuch) this.reload();
    else for (const event of held) this.take(event);
  }

  private get hasOverflowed(): boolean {
    return this.held.length > PAUSE_EVENTS_MAX || this.heldChars > PAUSE_CHARS_MAX;
  }

  private reload(): void {
    this.isOtherFilter = true;
    this.held = [];
    this.heldChars = 0;
    this.stream.input({ kind: "start" });
    this.mark("connection");
  }

  /** The server counts what it conflates for each reader. Which of them is this page is only certain when one fits. */
  noteThinning(readers: readonly ReaderInfo[]): void {
    const filters = [...this.plan.topicFilters].sort().join(" ");
    const fitting = readers.filter((reader) => reader.policy === "conflate" && [...reader.filters].sort().join(" ") === filters);
    const conflated = fitting.length === 1 ? (fitting[0]?.conflated ?? 0) : 0;
    this.conflatedLately = Math.max(0, conflated - this.conflated);
    this.conflated = conflated;
  }

  // ---- owner of the stream ------------------------------------------------------------------------------------------

  query(): [string, string][] {
    return [...this.plan.topicFilters.map((topicFilter): [string, string] => ["topic", topicFilter]), ["snapshot", "1"], ["overflow", "conflate"]];
  }

  opened(isFresh: boolean): void {
    if (this.isPaused && isFresh) {
      this.hasBroken = true;
      return;
    }
    if (this.isOtherFilter) {
      this.isOtherFilter = false;
      this.model.reset(this.plan);
      this.history.reset();
      this.history.loadTail(this.model, null);
    } else if (isFresh || this.wasSkipped) {
      // The plots fill what was missed from the log.
      this.history.reset();
      this.model.series.clear();
    }
    this.wasSkipped = false;
    this.mark("tree", "tail", "values", "gaps", "connection");
  }

  skipped(away_ms: number): void {
    if (this.isPaused) return; // all of it comes from the log when the page goes on
    this.wasSkipped = true;
    const now_ms = this.clock.now(Date.now());
    this.model.skipped(now_ms - away_ms, now_ms);
    this.mark("tail");
  }

  changed(): void {
    this.mark("connection");
  }

  event(event: ServerEvent): void {
    if (event.name === "live") this.stream.input({ kind: "live" });
    if (!this.isPaused) {
      this.take(event);
      return;
    }
    if (event.name === "message") this.newer += 1;
    this.mark("time");
    if (this.hasOverflowed) return; // all of it is in the log
    this.held.push(event);
    this.heldChars += event.data.length;
  }

  private take(event: ServerEvent): void {
    const now_ms = Date.now();
    switch (event.name) {
      case "message":
      case "snapshot": {
        const record = JSON.parse(event.data) as RecordData;
        const isSnapshot = event.name === "snapshot";
        const hadOpenGap = this.model.hasOpenGap;
        if (!this.model.take(record, event.data.length, isSnapshot)) return;
        if (hadOpenGap && !this.model.hasOpenGap) this.mark("gaps");
        if (!isSnapshot) {
          const time_ms = Date.parse(record.time);
          this.clock.heard(time_ms, now_ms);
          this.delay_ms = this.clock.now(now_ms) - time_ms;
          this.mark("tail");
        }
        this.mark("tree", "values");
        break;
      }
      case "live":
        this.model.live();
        this.mark("tree", "values", "tail");
        break;
      case "gap":
        this.model.gap(JSON.parse(event.data) as GapData, this.clock.now(now_ms));
        this.mark("gaps", "tail", "values");
        break;
    }
  }
}
