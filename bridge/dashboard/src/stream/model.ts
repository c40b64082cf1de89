/**
 * All that the worker knows, and what events do to it: tree, tail, profiles, plotted series, gaps. Pure.
 * The worker feeds it; `frames.ts` reads it.
 */
import type { GapData, RecordData, TopicState } from "../api/types";
import { GAPS_MAX } from "../app/limits";
import { changeText, kept, payloadText } from "../payload/summary";
import { Profiles, TopicProfile } from "../store/profiles";
import { SeriesStore } from "../store/series";
import { Tail, type NewEntry } from "../store/tail";
import { TopicTree } from "../store/topic-tree";
import { TreeView } from "../store/tree-view";
import type { Gap } from "../time/gaps";
import type { FirstMessage } from "./messages";
import { accepts, type Plan } from "./plan";

/** The newest of a stream's records are about so many characters beside their payload. */
const ENVELOPE_CHARS = 220;

export class Model {
  tree = new TopicTree();
  treeView = new TreeView(this.tree);
  tail = new Tail();
  profiles = new Profiles();
  series = new SeriesStore();
  gaps: Gap[] = [];
  received = 0;
  repeated = 0;
  /** Newest time of receipt among all messages, in the server's clock. */
  newest_ms = 0;
  /** A snapshot or history is over: what is not there now does not exist. */
  isComplete = false;
  firstMessage: FirstMessage | null = null;
  tailHistory: "loading" | "loaded" | "failed" = "loading";
  tailFault = "";
  private wasEmpty = false;
  /** Histories of topics that came before the topics did. */
  private unlearned = new Map<string, RecordData[]>();
  private openGap: Gap | null = null;
  private nextGap = 1;

  constructor(public plan: Plan) {}

  /** Everything is new, only a person's choice of order stays; with the same filter also what is open. */
  reset(plan: Plan): void {
    const { treeView } = this;
    const isSame = plan === this.plan;
    this.plan = plan;
    this.tree = new TopicTree();
    this.treeView = new TreeView(this.tree);
    if (isSame) this.treeView = this.treeView.adopt(treeView);
    this.treeView.sort = treeView.sort;
    this.tail.clear();
    this.profiles.clear();
    this.series.clear();
    this.gaps = [];
    this.openGap = null;
    this.isComplete = false;
    this.wasEmpty = false;
    this.tailHistory = "loading";
    this.newest_ms = 0;
  }

  /** A `message` or `snapshot` event; false when it changes nothing on screen. */
  take(record: RecordData, size: number, isSnapshot: boolean): boolean {
    if (!accepts(this.plan, record.topic, record.client_id)) return false;
    const time_ms = Date.parse(record.time);
    const taken = this.tree.take(record, time_ms, size, isSnapshot);
    if (!taken) {
      if (!isSnapshot) this.repeated += 1;
      return false;
    }
    this.profiles.touch(record.topic).take(record, time_ms);
    if (isSnapshot) return true;
    this.received += 1;
    if (this.openGap) {
      this.openGap.to_ms = time_ms;
      this.openGap = null;
    }
    if (this.wasEmpty && !this.firstMessage) {
      this.firstMessage = { clientId: record.client_id, topic: record.topic, time_ms };
      this.treeView.openWhatFits();
    }
    if (time_ms > this.newest_ms) this.newest_ms = time_ms;
    this.series.get(record.topic)?.add(record, time_ms);
    this.tail.add(tailEntry(record, taken.previous, time_ms));
    return true;
  }

  /** The latest record of some topics as the log had them at a moment. */
  takeState(topics: readonly TopicState[]): void {
    for (const state of topics) {
      if (!accepts(this.plan, state.topic, state.client_id)) continue;
      const time_ms = Date.parse(state.time);
      const taken = this.tree.take(state, time_ms, 0, true);
      if (!taken) continue;
      this.profiles.touch(state.topic).take(state, time_ms);
      if (state.interval_s) taken.latest.interval_ms = state.interval_s * 1000;
      if (time_ms > this.newest_ms) this.newest_ms = time_ms;
    }
  }

  /** The state at a moment is complete; the same levels are open as in `like`. */
  isThen(at_ms: number, like: TreeView): void {
    this.isComplete = true;
    for (const [topic, list] of this.unlearned) this.learn(topic, list);
    this.unlearned.clear();
    this.tree.settleRates(at_ms);
    this.wasEmpty = this.tree.topics === 0 && !like.hasOpened;
    if (like.hasOpened) this.treeView = this.treeView.adopt(like);
    else this.treeView.openWhatFits();
  }

  /** A loss whose end is not known yet: no message came since. */
  get hasOpenGap(): boolean {
    return this.openGap !== null;
  }

  /** Snapshot or history is over. */
  live(): void {
    if (!this.isComplete) {
      this.isComplete = true;
      this.wasEmpty = this.tree.topics === 0;
      this.treeView.openWhatFits();
    }
  }

  gap(data: GapData, now_ms: number): void {
    const gap: Gap = { id: this.nextGap, from_ms: this.newest_ms || now_ms, to_ms: null, lost: data.lost, reason: data.reason };
    this.nextGap += 1;
    this.openGap = gap;
    this.gaps = [...this.gaps.slice(1 - GAPS_MAX), gap];
    this.tail.add({ kind: "gap", gap, time_ms: now_ms, size: 0 });
  }

  /** Away for too long: what was missed is in the log, but not on this page. */
  skipped(from_ms: number, now_ms: number): void {
    this.tail.add({ kind: "skip", from_ms, time_ms: now_ms, size: 0 });
  }

  /**
   * The newest records of the log, in any order: fills the tail and what is known of their topics. Of a moment that has
   * passed all of them count; live, the request may have been ahead of the stream.
   */
  takeTailHistory(records: readonly RecordData[], past_ms: number | null = null): void {
    const sorted = records
      .filter((record) => accepts(this.plan, record.topic, record.client_id))
      // What the stream has not brought yet it will bring.
      .filter((record) => past_ms !== null || this.tree.find(record.topic)?.latest?.positions.covers(record))
      .map((record) => ({ record, time_ms: Date.parse(record.time) }))
      .sort((left, right) => left.time_ms - right.time_ms || left.record.offset - right.record.offset);
    const entries: Extract<NewEntry, { kind: "message" }>[] = [];
    const previous = new Map<string, RecordData>();
    const byTopic = new Map<string, RecordData[]>();
    for (const { record, time_ms } of sorted) {
      entries.push(tailEntry(record, previous.get(record.topic) ?? null, time_ms));
      previous.set(record.topic, record);
      const list = byTopic.get(record.topic);
      if (list) list.push(record);
      else byTopic.set(record.topic, [record]);
      if (time_ms > this.newest_ms) this.newest_ms = time_ms;
    }
    this.tail.addHistory(entries);
    if (past_ms !== null && !this.isComplete) {
      this.unlearned = byTopic;
      return;
    }
    for (const [topic, list] of byTopic) this.learn(topic, list);
    if (past_ms !== null) this.tree.settleRates(past_ms);
  }

  /** Judges a topic's fields anew by its history, oldest first; then by what came live meanwhile. */
  learn(topic: string, history: readonly RecordData[]): void {
    const node = this.tree.find(topic);
    const latest = node?.latest;
    if (!latest || history.length < 2) return;
    const profile = new TopicProfile();
    for (const record of history) profile.take(record, Date.parse(record.time));
    const newest = history.at(-1);
    if (newest && latest.record.offset !== newest.offset) profile.take(latest.record, Date.parse(latest.record.time));
    this.profiles.put(topic, profile);
    if (Number.isNaN(latest.interval_ms)) {
      const span = Date.parse(newest?.time ?? "") - Date.parse(history[0]?.time ?? "");
      if (span > 0) latest.interval_ms = span / (history.length - 1);
    }
  }
}

function tailEntry(record: RecordData, previous: RecordData | null, time_ms: number): Extract<NewEntry, { kind: "message" }> {
  const { text, isCut } = kept(payloadText(record.payload, record.encoding));
  return {
    kind: "message",
    // A large payload is not held a second time as a value.
    record: isCut ? { ...record, payload: null } : record,
    text,
    isCut,
    time_ms,
    size: text.length * 2 + ENVELOPE_CHARS,
    distance_ms: previous ? time_ms - Date.parse(previous.time) : Number.NaN,
    change: changeText(previous?.payload, record.payload),
  };
}
