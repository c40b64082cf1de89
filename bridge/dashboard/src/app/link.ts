/**
 * The page's end of the worker: signals that views read, and the one view request that tells the worker what is on screen.
 * A frame is taken once per animation frame; nothing is taken while the page is hidden.
 */
import { batch, computed, signal } from "@preact/signals";
import type {
  ConnectionFrame,
  Detail,
  FieldFrame,
  FirstMessage,
  Frame,
  FromWorker,
  TailFrame,
  TimeFrame,
  ToWorker,
  TreeFrame,
  ViewRequest,
} from "../stream/messages";
import type { Gap } from "../time/gaps";
import { HEARTBEAT_S, PLOT_BUFFER_MAX } from "./limits";
import { address, type Address } from "./router";
import { isPast, LIVE, type TimeState } from "./time-state";

export interface PlotBuffer {
  times: number[];
  values: (number | null)[];
  /** Lowest and highest values of the first points, each of which stands for several messages. */
  low: number[];
  high: number[];
  states: string[];
  /** Rises with every change of the points. */
  version: number;
}

export const connection = signal<ConnectionFrame | null>(null);
export const tree = signal<TreeFrame | null>(null);
export const tail = signal<TailFrame | null>(null);
/** What the worker says of the moment on screen; null until it said something of this one. */
export const timeFrame = signal<TimeFrame | null>(null);
/** Why there is no tree of the moment on screen. */
export const treeFault = computed(() => timeFrame.value?.treeFault ?? "");
export const fields = signal<{ selected: string; list: FieldFrame[]; total: number } | null>(null);
export const gaps = signal<Gap[]>([]);
export const firstMessage = signal<FirstMessage | null>(null);
export const detail = signal<Detail | null>(null);
/** Rises when points came: plots then read their buffer. */
export const plotTick = signal(0);
/** The server's clock, once a second while the page is shown. */
export const now = signal(Date.now());
/** The moment on screen moves with `now`, unless the page is paused or shows what was. */
export const shown = signal(Date.now());
/** Parts of the screen that are of the moment before; those of this one are on their way. */
export const stale = signal({ tree: false, tail: false, values: false });
export const isStale = computed(() => Object.values(stale.value).some(Boolean));
export const hasWorkerFailed = signal("");
/** When this page was opened, in the browser's clock. */
export const openedAt_ms = Date.now();

const buffers = new Map<string, PlotBuffer>();
let worker: Worker | null = null;
let view: ViewRequest = {
  tree: { first: 0, count: 40 },
  tail: { first: 0, count: 40, heldAt: null, isWholeTail: false },
  selected: "",
  sort: "name",
  window_ms: 0,
};
let time: TimeState = LIVE;
let timeId = 0;
let ticking: ReturnType<typeof setInterval> | undefined;
let isViewSent = true;

export function plotBuffer(id: string): PlotBuffer | undefined {
  return buffers.get(id);
}

export function serverNow(): number {
  return Date.now() + (connection.value?.clockOffset_ms ?? 0);
}

/** The exact moment on screen: `shown` is as old as the last frame. */
export function shownNow(): number {
  return time.mode === "live" ? serverNow() : shown.value;
}

export function start(state: TimeState): void {
  time = state;
  shown.value = momentOf(state);
  setStale(isPast(state));
  worker = new Worker(new URL("../stream/worker.ts", import.meta.url), { type: "module", name: "stream" });
  worker.onmessage = (event: MessageEvent<FromWorker>) => take(event.data);
  worker.onerror = (event) => {
    hasWorkerFailed.value = event.message || "the part of this page that reads the stream did not start";
  };
  const { terms } = address.value;
  view = { ...view, ...viewOf(address.value) };
  send({
    kind: "start",
    base: new URL("api/v1/", document.baseURI).href,
    terms,
    heartbeat_s: heartbeat_s(),
    view,
    time: { id: timeId, state, isContinued: false },
    isHidden: document.hidden,
  });
  address.subscribe((next) => follow(next));
  document.addEventListener("visibilitychange", onVisibility);
  window.addEventListener("online", reconnect);
  tick(!document.hidden);
}

/** Another moment: what the worker sent for the one before is not shown any more. */
export function setTime(state: TimeState, isContinued: boolean): void {
  const wasLive = !isPast(time);
  time = state;
  timeId += 1;
  batch(() => {
    // A pause keeps what is there, and so does going on.
    if (!isContinued) setStale(isPast(state) || !wasLive);
    if (!isContinued && state.mode !== "paused") shown.value = momentOf(state);
    timeFrame.value = null;
  });
  send({ kind: "time", time: { id: timeId, state, isContinued } });
}

function setStale(isOld: boolean): void {
  stale.value = { tree: isOld, tail: isOld, values: isOld };
}

function momentOf(state: TimeState): number {
  if (state.mode === "live") return serverNow();
  return state.mode === "replaying" ? state.from_ms : state.at_ms;
}

export function reconnect(): void {
  send({ kind: "reconnect" });
}

export function setOpen(path: string, isOpen: boolean): void {
  send({ kind: "open", path, isOpen });
}

export function retryHistory(topic: string): void {
  send({ kind: "retry", topic });
}

export function askDetail(number: number): void {
  send({ kind: "detail", number });
}

/** Tells the worker what is on screen; changes of one turn go together. */
export function show(part: Partial<ViewRequest>): void {
  view = { ...view, ...part };
  if (!isViewSent) return;
  isViewSent = false;
  queueMicrotask(() => {
    isViewSent = true;
    send({ kind: "view", view });
  });
}

export function tailView(): ViewRequest["tail"] {
  return view.tail;
}

function viewOf(next: Address): Pick<ViewRequest, "selected" | "sort" | "window_ms"> {
  const window_ms = Number.isFinite(next.window_ms) ? next.window_ms : wholeSpan_ms;
  return { selected: next.branch, sort: next.sort, window_ms };
}

let wholeSpan_ms = 86_400_000;
/** How long "all kept" is. */
export function setWholeSpan(span_ms: number): void {
  wholeSpan_ms = span_ms;
  show(viewOf(address.value));
}

let followed = address.value;
function follow(next: Address): void {
  if (next === followed) return;
  if (next.terms.join(" ") !== followed.terms.join(" ")) send({ kind: "filter", terms: next.terms });
  followed = next;
  show(viewOf(next));
}

function send(message: ToWorker): void {
  worker?.postMessage(message);
}

function onVisibility(): void {
  tick(!document.hidden);
  send({ kind: "visibility", isHidden: document.hidden });
}

function tick(isRunning: boolean): void {
  clearInterval(ticking);
  if (!isRunning) return;
  const advance = (): void =>
    batch(() => {
      now.value = serverNow();
      if (time.mode === "live") shown.value = now.value;
    });
  advance();
  ticking = setInterval(advance, 1000);
}

function take(message: FromWorker): void {
  if (message.kind === "detail") {
    detail.value = message;
    return;
  }
  // A frame that was on its way when the page was hidden: its points are kept, nothing is drawn.
  if (document.hidden) {
    if (message.timeId === timeId) store(message);
    send({ kind: "painted" });
    return;
  }
  requestAnimationFrame(() => {
    apply(message);
    send({ kind: "painted" });
  });
}

function store(frame: Frame): boolean {
  let hasPoints = false;
  const list = frame.values?.fields ?? [];
  for (const field of list) {
    let buffer = buffers.get(field.id);
    if (!buffer) {
      buffer = { times: [], values: [], low: [], high: [], states: [], version: 0 };
      buffers.set(field.id, buffer);
    }
    buffer.states = field.states;
    if (!field.points) continue;
    hasPoints = true;
    buffer.version += 1;
    if (field.points.isReset) {
      buffer.times = field.points.times;
      buffer.values = field.points.values;
      buffer.low = field.points.low;
      buffer.high = field.points.high;
    } else {
      for (const time of field.points.times) buffer.times.push(time);
      for (const value of field.points.values) buffer.values.push(value);
    }
    // The worker sends all points anew before this many have come; a state's are only dropped.
    const surplus = buffer.times.length - 2 * PLOT_BUFFER_MAX;
    if (surplus > 0) for (const column of [buffer.times, buffer.values, buffer.low, buffer.high]) column.splice(0, surplus);
  }
  if (frame.values) {
    const ids = new Set(list.map((field) => field.id));
    for (const id of buffers.keys()) if (!ids.has(id)) buffers.delete(id);
  }
  return hasPoints;
}

function apply(frame: Frame): void {
  if (frame.timeId !== timeId) {
    // Made for the moment before: only the connection is still what it was.
    if (frame.connection) connection.value = frame.connection;
    return;
  }
  batch(() => {
    store(frame);
    if (frame.connection) connection.value = frame.connection;
    if (frame.time) takeTime(frame.time);
    const old = stale.value;
    if (isStale.value) stale.value = { tree: old.tree && !frame.tree, tail: old.tail && !frame.tail, values: old.values && !frame.values };
    if (frame.tree) tree.value = frame.tree;
    if (frame.tail) tail.value = frame.tail;
    if (frame.gaps) gaps.value = frame.gaps;
    if (frame.firstMessage) firstMessage.value = frame.firstMessage;
    if (frame.values) {
      fields.value = { selected: frame.values.selected, list: frame.values.fields, total: frame.values.total };
      plotTick.value += 1;
    }
  });
}

function takeTime(frame: TimeFrame): void {
  timeFrame.value = frame;
  if (time.mode === "replaying") shown.value = frame.shown_ms;
}

/** `?heartbeat_s=` tells the page that its server (or a proxy before it) speaks up more often than every 15 s. */
function heartbeat_s(): number {
  const asked = Number(new URLSearchParams(location.search).get("heartbeat_s"));
  return asked > 0 ? Math.min(HEARTBEAT_S, Math.max(0.2, asked)) : HEARTBEAT_S;
}
