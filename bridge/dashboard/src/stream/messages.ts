/** What page and worker tell each other. Only what is on screen and changed crosses over, at most 20 times a second. */
import type { MessageProperties } from "../api/types";
import type { Kind } from "../payload/classify";
import type { TimeState } from "../app/time-state";
import type { Sort } from "../store/tree-view";
import type { Gap } from "../time/gaps";
import type { Phase } from "./connection";

/** What the page shows at the moment; sent whole, it is small. */
export interface ViewRequest {
  tree: { first: number; count: number };
  tail: { first: number; count: number; heldAt: number | null; isWholeTail: boolean };
  /** Path of the selected level; an empty text for none. */
  selected: string;
  sort: Sort;
  window_ms: number;
}

/** Parts of what is on screen; each is sent when it changed. */
export type Part = "connection" | "tree" | "tail" | "values" | "gaps" | "time";

/** Which moment the page shows. Frames carry the id of the request that they are for. */
export interface TimeRequest {
  id: number;
  state: TimeState;
  /** A replay goes on from where it is, at another speed. */
  isContinued: boolean;
}

export type ToWorker =
  | { kind: "start"; base: string; terms: string[]; heartbeat_s: number; view: ViewRequest; time: TimeRequest; isHidden: boolean }
  | { kind: "time"; time: TimeRequest }
  | { kind: "filter"; terms: string[] }
  | { kind: "view"; view: ViewRequest }
  | { kind: "open"; path: string; isOpen: boolean }
  | { kind: "visibility"; isHidden: boolean }
  | { kind: "reconnect" }
  | { kind: "retry"; topic: string }
  | { kind: "detail"; number: number }
  | { kind: "painted" };

export interface ConnectionFrame {
  phase: Phase;
  hasBeenOpen: boolean;
  attempt: number;
  /** In the browser's clock. */
  retryAt_ms: number;
  /** Age of the newest message when it came; null until one did. */
  delay_ms: number | null;
  refusal: { status: number; text: string } | null;
  /** Values that newer ones replaced on their way here, in the last quarter of a minute, as far as the server tells them. */
  conflated: number;
  received: number;
  repeated: number;
  opened: number;
  /** Server's clock minus the browser's. */
  clockOffset_ms: number;
  faults: string[];
}

export interface TimeFrame {
  /** The moment on screen, in the server's clock; a replay moves it on. */
  shown_ms: number;
  /** Messages that came since the pause. */
  newer: number;
  /** Why there is no tree of that moment; empty when there is one. */
  treeFault: string;
  /** Topics that were silent since then may be missing; null when all are there. */
  treeFrom_ms: number | null;
  /** Why there is no replay. */
  replayFault: string;
  /** The replay has reached now. */
  hasCaughtUp: boolean;
}

export interface TreeRow {
  path: string;
  name: string;
  level: number;
  isTopic: boolean;
  hasChildren: boolean;
  isOpen: boolean;
  topics: number;
  value: string;
  spark: number[];
  rate: number;
  /** Part of its siblings' rate, 0 to 1. */
  share: number;
  lastTime_ms: number;
  interval_ms: number;
  /** Place among siblings, for screen readers. */
  position: number;
  siblings: number;
}

export interface TreeFrame {
  first: number;
  total: number;
  rows: TreeRow[];
  topics: number;
  overflowed: number;
  rate: number;
  /** A snapshot was taken and there is nothing: the first screen. */
  isEmpty: boolean;
}

export type TailRow =
  | {
      kind: "message";
      number: number;
      time_ms: number;
      distance_ms: number;
      topic: string;
      clientId: string;
      qos: number;
      retain: boolean;
      text: string;
      /** The record has no payload at all. */
      isTombstone: boolean;
      change: string;
    }
  | { kind: "gap"; number: number; gap: Gap }
  | { kind: "skip"; number: number; from_ms: number; to_ms: number };

export interface TailFrame {
  first: number;
  total: number;
  newer: number;
  rows: TailRow[];
  rate: number;
  history: "loading" | "loaded" | "failed";
  fault: string;
}

export interface FieldFrame {
  id: string;
  topic: string;
  /** JSON Pointer. */
  pointer: string;
  label: string;
  unit: string;
  kind: Kind;
  value: string;
  lastTime_ms: number;
  history: "loading" | "loaded" | "failed";
  fault: string;
  /** Names of the values of a state; `values` are indexes into it. */
  states: string[];
  /**
   * New points; `isReset` replaces those before. Absent when there are none. A point that stands for several messages
   * has their lowest and highest value; `low` and `high` are empty when there is none of those.
   */
  points?: { isReset: boolean; times: number[]; values: (number | null)[]; low: number[]; high: number[] };
}

export interface ValuesFrame {
  selected: string;
  fields: FieldFrame[];
  total: number;
}

export interface FirstMessage {
  clientId: string;
  topic: string;
  time_ms: number;
}

export interface Frame {
  kind: "frame";
  timeId: number;
  time?: TimeFrame;
  connection?: ConnectionFrame;
  tree?: TreeFrame;
  tail?: TailFrame;
  values?: ValuesFrame;
  gaps?: Gap[];
  /** Sent once, when a server that had nothing got its first message. */
  firstMessage?: FirstMessage;
}

export interface Detail {
  kind: "detail";
  number: number;
  topic: string;
  clientId: string;
  time_ms: number;
  place: string;
  qos: number;
  retain: boolean;
  encoding: string;
  text: string;
  size: number;
  isCut: boolean;
  properties: MessageProperties | null;
}

export type FromWorker = Frame | Detail;
