/**
 * What was: the state of all topics at a moment, the messages before it, and on request the replay from there. It has a
 * model of its own, so that nothing live gets into it, and ends when the page shows another moment.
 */
import { ApiError, faultOf, NOT_AVAILABLE, type ApiClient } from "../api/client";
import type { GapData, RecordData } from "../api/types";
import { STATE_PAGE, TOPICS_MAX } from "../app/limits";
import type { TreeView } from "../store/tree-view";
import { ReplayClock, type Speed } from "../time/replay-clock";
import { isOpen } from "./connection";
import { EventStream, type StreamOwner } from "./event-stream";
import { HistoryLoader } from "./history";
import type { Part } from "./messages";
import { Model } from "./model";
import type { Plan } from "./plan";
import type { ServerEvent } from "./sse-parser";

export class PastSide implements StreamOwner {
  readonly model: Model;
  readonly history: HistoryLoader;
  /** Why there is no tree of this moment. */
  treeFault = "";
  /** Topics that were silent since then may be missing. */
  treeFrom_ms: number | null = null;
  replayFault = "";
  hasCaughtUp = false;
  /** Tree and tail are there, or it is known why not. */
  isTreeKnown = false;
  stream: EventStream | null = null;
  /** Of the replay; null while there is none. */
  speed: Speed | null = null;
  private readonly abort = new AbortController();
  private clock: ReplayClock;

  constructor(
    private readonly api: ApiClient,
    private readonly heartbeat_s: number,
    private readonly plan: Plan,
    readonly at_ms: number,
    private readonly mark: (...parts: Part[]) => void,
  ) {
    this.model = new Model(plan);
    this.clock = new ReplayClock(at_ms, "max");
    this.history = new HistoryLoader(api, () => this.mark("tail", "values", "tree", "time"));
  }

  /** `like` has the levels of the tree that are open. */
  load(like: TreeView): void {
    this.history.loadTail(this.model, this.at_ms);
    void this.loadTree(like);
  }

  private async loadTree(like: TreeView): Promise<void> {
    try {
      await this.loadState();
    } catch (error) {
      if (this.abort.signal.aborted) return;
      this.treeFault = faultOf(error);
    }
    if (this.abort.signal.aborted) return;
    this.model.isThen(this.at_ms, like);
    this.isTreeKnown = true;
    this.mark("tree", "tail", "values", "time");
    // What is replayed comes after what was: not before the state is complete.
    this.stream?.input({ kind: "start" });
  }

  close(): void {
    this.abort.abort();
    this.history.reset();
    this.stream?.input({ kind: "stop" });
  }

  get isTailKnown(): boolean {
    return this.model.tailHistory !== "loading";
  }

  get isReplaying(): boolean {
    return this.speed !== null;
  }

  moment_ms(): number {
    return this.clock.now(Date.now());
  }

  /** Begins the replay, or goes on with another speed from where it is. */
  play(speed: Speed): void {
    const from_ms = this.moment_ms();
    const isRunning = this.speed !== null;
    this.speed = speed;
    this.replayFault = "";
    this.clock = new ReplayClock(from_ms, speed);
    if (isRunning && this.stream) {
      this.stream.input({ kind: "sleep" });
      this.stream.input({ kind: "wake" });
    } else {
      this.stream = new EventStream(this.api, this.heartbeat_s, this);
      if (this.isTreeKnown) this.stream.input({ kind: "start" });
    }
    this.mark("time", "connection");
  }

  private async loadState(): Promise<void> {
    let after: string | null = null;
    for (let count = 0; count < TOPICS_MAX; count += STATE_PAGE) {
      const at = new Date(this.at_ms).toISOString();
      const page = await this.api.topicsAt(this.plan.topicFilters, at, STATE_PAGE, after, this.abort.signal);
      this.model.takeState(page.topics);
      if (page.complete === false) this.treeFrom_ms = Date.parse(page.scanned_to ?? "") || this.at_ms;
      after = page.next;
      if (after === null) return;
    }
  }

  // ---- owner of the replay's stream ---------------------------------------------------------------------------------

  query(): [string, string][] {
    // The moment itself belongs to the state: the replay begins with the next millisecond. One that begins again
    // begins with its last event, which is taken once.
    const since = new Date(Math.max(this.at_ms + 1, this.model.newest_ms)).toISOString();
    return [
      ...this.plan.topicFilters.map((topicFilter): [string, string] => ["topic", topicFilter]),
      ["since", since],
      ["speed", String(this.speed ?? 1)],
    ];
  }

  opened(): void {
    this.clock.start(Date.now());
    this.mark("connection", "time");
  }

  skipped(): void {
    // However long it was away, a replay goes on with what comes next: nothing is skipped.
  }

  changed(): void {
    const state = this.stream?.state;
    if (state && !isOpen(state)) this.clock.stop(Date.now());
    if (state?.phase === "refused" && state.refusal) {
      const error = new ApiError(state.refusal.status, state.refusal.text);
      this.replayFault = error.isNotAvailable ? NOT_AVAILABLE : state.refusal.text;
    }
    this.mark("connection", "time");
  }

  event(event: ServerEvent): void {
    const local_ms = Date.now();
    switch (event.name) {
      case "message":
      case "snapshot": {
        const record = JSON.parse(event.data) as RecordData;
        const time_ms = Date.parse(record.time);
        this.clock.take(time_ms, local_ms);
        const hadOpenGap = this.model.hasOpenGap;
        if (!this.model.take(record, event.data.length, event.name === "snapshot")) return;
        if (hadOpenGap && !this.model.hasOpenGap) this.mark("gaps");
        this.mark("tree", "values", "tail", "time");
        break;
      }
      case "live":
        this.hasCaughtUp = true;
        this.stream?.input({ kind: "live" });
        this.mark("time");
        break;
      case "gap":
        this.model.gap(JSON.parse(event.data) as GapData, this.moment_ms());
        this.mark("gaps", "tail", "values");
        break;
    }
  }
}
