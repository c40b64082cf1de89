/**
 * All known topics as a tree of levels, with count, rate and age for each level and the latest value for each topic.
 * Pure: times are arguments, in milliseconds of the server's clock.
 */
import type { RecordData } from "../api/types";
import { SILENT_INTERVALS, TOPICS_MAX } from "../app/limits";
import { TopicPositions } from "./positions";

/** Rates are decayed counts: a message weighs 1/e after this long. */
const RATE_MS = 10_000;

export interface Latest {
  record: RecordData;
  /** Usual distance of two messages; NaN until two came. */
  interval_ms: number;
  positions: TopicPositions;
}

export class TopicNode {
  readonly children = new Map<string, TopicNode>();
  latest: Latest | null = null;
  /** Place among its siblings as they were ordered last, from 1. */
  position = 1;
  topics = 0;
  count = 0;
  bytes = 0;
  lastTime_ms = 0;
  /** Messages a second at a moment that has passed, NaN where nobody knows; what comes then counts instead. */
  usualRate = 0;
  private decayed = 0;
  private decayedAt_ms = 0;
  private since_ms = 0;

  constructor(
    readonly name: string,
    readonly path: string,
    readonly parent: TopicNode | null,
  ) {}

  get depth(): number {
    let depth = -1;
    for (let node = this.parent; node; node = node.parent) depth += 1;
    return depth;
  }

  note(time_ms: number, size: number): void {
    if (this.since_ms === 0) this.since_ms = time_ms;
    if (time_ms > this.decayedAt_ms) {
      this.decayed *= Math.exp((this.decayedAt_ms - time_ms) / RATE_MS);
      this.decayedAt_ms = time_ms;
    }
    this.decayed += 1;
    this.count += 1;
    this.bytes += size;
    if (time_ms > this.lastTime_ms) this.lastTime_ms = time_ms;
  }

  /** Messages a second, now. A topic slower than the decay goes by its usual interval. */
  rate(now_ms: number): number {
    if (this.decayed === 0) return this.usualRate;
    const elapsed = Math.max(0, now_ms - this.decayedAt_ms);
    const seen_ms = Math.max(1000, now_ms - this.since_ms);
    // Since the first message only `seen_ms` have passed: the decayed count is that much too small.
    const share = 1 - Math.exp(-seen_ms / RATE_MS);
    const perSecond = (this.decayed * Math.exp(-elapsed / RATE_MS)) / ((RATE_MS / 1000) * share);
    const interval_ms = this.latest?.interval_ms ?? Number.NaN;
    if (this.children.size === 0 && interval_ms > RATE_MS / 3) return elapsed > 3 * interval_ms ? 0 : 1000 / interval_ms;
    return perSecond < 0.02 ? 0 : perSecond;
  }
}

export interface Taken {
  node: TopicNode;
  latest: Latest;
  /** The payload before this one; undefined for the first. */
  previous: RecordData | null;
  isNewTopic: boolean;
}

export class TopicTree {
  readonly root = new TopicNode("", "", null);
  /** Topics beyond the limit, which are not shown. */
  overflowed = 0;
  /** Rises whenever a level was added. */
  shape = 0;
  private readonly byTopic = new Map<string, TopicNode>();

  get topics(): number {
    return this.byTopic.size;
  }

  find(topic: string): TopicNode | undefined {
    return this.byTopic.get(topic);
  }

  /** The level with this path, which need not be a topic. */
  branch(path: string): TopicNode | null {
    let node: TopicNode | null = this.root;
    for (const level of path.split("/")) {
      node = node.children.get(level) ?? null;
      if (!node) return null;
    }
    return node;
  }

  /**
   * Takes a message (or, with `isSnapshot`, a topic's value from before: no count, no rate).
   * Null for a repeat, and for a new topic beyond the limit.
   */
  take(record: RecordData, time_ms: number, size: number, isSnapshot: boolean): Taken | null {
    let node = this.byTopic.get(record.topic);
    const isNewTopic = !node;
    if (!node) {
      if (this.byTopic.size >= TOPICS_MAX) {
        this.overflowed += 1;
        return null;
      }
      node = this.add(record.topic);
    }
    const latest = (node.latest ??= { record, interval_ms: Number.NaN, positions: new TopicPositions() });
    if (!latest.positions.take(record)) return null;
    const previous = isNewTopic ? null : latest.record;
    const previous_ms = node.children.size === 0 ? node.lastTime_ms : Date.parse(latest.record.time);
    if (previous && time_ms > previous_ms) {
      const distance = time_ms - previous_ms;
      latest.interval_ms = Number.isNaN(latest.interval_ms) ? distance : latest.interval_ms * 0.8 + distance * 0.2;
    }
    latest.record = record;
    if (isSnapshot) node.lastTime_ms = Math.max(node.lastTime_ms, time_ms);
    for (let level: TopicNode | null = node; level; level = level.parent) {
      if (isSnapshot) level.lastTime_ms = Math.max(level.lastTime_ms, time_ms);
      else level.note(time_ms, size);
    }
    return { node, latest, previous, isNewTopic };
  }

  /** Rates of a moment, from how often the topics come; a level of which one topic is not known is not known. */
  settleRates(at_ms: number, node: TopicNode = this.root): number {
    let rate = 0;
    if (node.latest) {
      const { interval_ms, record } = node.latest;
      const isSilent = at_ms - Date.parse(record.time) > interval_ms * SILENT_INTERVALS;
      rate = isSilent ? 0 : 1000 / interval_ms;
    }
    for (const child of node.children.values()) rate += this.settleRates(at_ms, child);
    node.usualRate = rate;
    return rate;
  }

  private add(topic: string): TopicNode {
    let node = this.root;
    let start = 0;
    for (;;) {
      const slash = topic.indexOf("/", start);
      const name = topic.slice(start, slash < 0 ? undefined : slash);
      let child = node.children.get(name);
      if (!child) {
        child = new TopicNode(name, slash < 0 ? topic : topic.slice(0, slash), node);
        node.children.set(name, child);
      }
      node = child;
      if (slash < 0) break;
      start = slash + 1;
    }
    this.byTopic.set(topic, node);
    this.shape += 1;
    for (let level: TopicNode | null = node; level; level = level.parent) level.topics += 1;
    return node;
  }
}
