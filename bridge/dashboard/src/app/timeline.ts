/**
 * The page's one timeline: which moment is shown, what the bar shows of the time around it, and the commands that change
 * them. The address holds the moment; the worker is told of it.
 */
import { batch, computed, effect, signal, untracked } from "@preact/signals";
import { ApiClient, faultOf, NOT_AVAILABLE } from "../api/client";
import { accepts, planOf } from "../stream/plan";
import { allGaps } from "../time/gaps";
import { panned, rangeAt, rangeEnding, span_ms, widthOf, zoomed, type Range } from "../time/range";
import type { Speed } from "../time/replay-clock";
import { nextWindow } from "../time/windows";
import { count, histogram, startHistogram } from "./histogram";
import { BUCKETS, CAUGHT_UP_MS, SCRUB_SETTLE_MS, TAIL_HISTORY_STREAMS_MAX } from "./limits";
import { gaps, now, serverNow, setTime, setWholeSpan, shown, shownNow, start, timeFrame } from "./link";
import { address, go } from "./router";
import { addressOfTime, isPast, LIVE, nextTime, speedOf, timeOfAddress, type TimeInput, type TimeState } from "./time-state";

export const time = signal<TimeState>(LIVE);
/** The speed of the next replay, and of the one that runs. */
export const speed = signal<Speed>(1);
/** While a pointer is dragged: the moment below it, which is asked for when it rests. */
export const scrubbed = signal<number | null>(null);
/** A replay has just reached now. */
export const hasCaughtUp = signal(false);
/** Why the last command did not do what it should; a sentence. */
export const timeFault = signal("");

const pausedAt = signal<number | null>(null);
const api = new ApiClient(new URL("api/v1/", document.baseURI).href);

export const inPast = computed(() => isPast(time.value));
const plan = computed(() => planOf(address.value.terms));

/** Words and clients of the filter are looked at here; the server counts what its topic filters let through. */
export const countedWords = computed(() => (plan.value.words.length + plan.value.clientIds.length ? ` of ${plan.value.topicFilters.join(" ")}` : ""));

/** Losses that the page noticed and those that the log tells of, for plots and marks. */
export const allLosses = computed(() => allGaps(gaps.value, histogram.value?.losses ?? [], histogram.value?.range.from_ms ?? 0));

/** The time that the bar shows. */
export const range = signal<Range>(rangeEnding(serverNow(), widthOf(address.value.window_ms, null, serverNow())));

function rangeNow(): Range {
  const state = time.value;
  const before = range.peek();
  if (scrubbed.value !== null) return before; // nothing moves below the pointer
  const now_ms = now.value;
  const width_ms = widthOf(address.value.window_ms, histogram.value?.oldest_ms ?? null, now_ms);
  if (state.mode === "live") return rangeEnding(now_ms, width_ms);
  if (state.mode === "paused") return rangeEnding(state.at_ms, width_ms);
  if (!Number.isFinite(address.value.window_ms)) return rangeEnding(now_ms, width_ms); // all there is, whatever is shown of it
  if (state.mode === "past") return rangeAt(before, width_ms, state.at_ms, now_ms, false);
  return rangeAt(before, width_ms, shown.value, now_ms, true);
}

// ---- commands -------------------------------------------------------------------------------------------------------

export function goLive(): void {
  dispatch({ kind: "live" });
}

/** Space: pause and go on; in the past play and stop. */
export function toggle(): void {
  dispatch({ kind: "toggle" });
}

export function goTo(at_ms: number, how: "push" | "replace" = "push"): void {
  dispatch({ kind: "goTo", at_ms }, how);
}

/** A speed was chosen: a replay goes on with it, in the past it begins. */
export function play(next: Speed): void {
  speed.value = next;
  dispatch({ kind: "play" });
}

/** A share of the window earlier or later; beyond now is live. */
export function jump(share: number): void {
  const { width_ms } = range.value;
  batch(() => {
    range.value = panned(range.value, share, serverNow());
    goTo(shownNow() + share * BUCKETS * width_ms);
  });
}

/** One bucket of the bar, or several, earlier or later. */
export function step(buckets: number): void {
  const width_ms = range.value.width_ms;
  goTo((scrubbed.value ?? shownNow()) + buckets * width_ms, inPast.value ? "replace" : "push");
}

/** The next narrower or wider window. What is at `around_ms` stays where it is; live, the right edge does. */
export function zoom(direction: -1 | 1, around_ms: number | null = null): void {
  const window_ms = nextWindow(address.value.window_ms, direction);
  if (window_ms === address.value.window_ms) return;
  const now_ms = serverNow();
  const width_ms = widthOf(window_ms, histogram.value?.oldest_ms ?? null, now_ms);
  batch(() => {
    range.value = zoomed(range.value, width_ms, around_ms ?? shownNow(), now_ms);
    go({ window_ms });
  });
}

let scrubTimer: ReturnType<typeof setTimeout> | undefined;
let hasScrubbed = false;

/** The pointer is dragged over the bar; the moment is shown when it rests. */
export function scrub(at_ms: number): void {
  scrubbed.value = Math.min(at_ms, serverNow());
  clearTimeout(scrubTimer);
  scrubTimer = setTimeout(() => {
    settle();
    hasScrubbed = true;
  }, SCRUB_SETTLE_MS);
}

/** The pointer is let go. */
export function endScrub(): void {
  clearTimeout(scrubTimer);
  settle();
  scrubbed.value = null;
  hasScrubbed = false;
}

function settle(): void {
  const at_ms = scrubbed.value;
  if (at_ms !== null) goTo(at_ms, hasScrubbed ? "replace" : "push");
}

/** To the loss before or after the moment on screen. */
export function goToMark(direction: -1 | 1): void {
  const at_ms = shownNow();
  const marks = allLosses.value.map((gap) => gap.from_ms).filter((mark_ms) => (direction < 0 ? mark_ms < at_ms : mark_ms > at_ms));
  const mark_ms = direction < 0 ? marks.at(-1) : marks[0];
  if (mark_ms !== undefined) goTo(mark_ms);
}

/** To the moment of the message before the one that is shown last, or of the next one, of the selected branch. */
export function goToMessage(direction: -1 | 1): void {
  timeOfMessage(direction).then(
    (time_ms) => Number.isFinite(time_ms) && goTo(time_ms, inPast.value ? "replace" : "push"),
    (error: unknown) => (timeFault.value = `The next messages did not load: ${faultOf(error)}`),
  );
}

async function timeOfMessage(direction: -1 | 1): Promise<number> {
  const at_ms = Math.round(shownNow());
  const { branch } = address.value;
  const filters = branch ? [branch, `${branch}/#`] : plan.value.topicFilters;
  const streams = (await api.streams()).filter((stream) => stream.records !== 0).slice(0, TAIL_HISTORY_STREAMS_MAX);
  const next = new Date(at_ms + 1).toISOString();
  const pages = await Promise.all(
    streams.map(({ name }) => (direction < 0 ? api.latestRecords(name, filters, BESIDE, { to: next }) : api.nextRecords(name, filters, next, BESIDE))),
  );
  const times = pages
    .flatMap((page) => page.records)
    .filter((record) => accepts(plan.value, record.topic, record.client_id))
    .map((record) => Date.parse(record.time));
  return direction < 0 ? secondLatest(times) : Math.min(...times);
}

/** Words and clients of the filter are looked at here, and messages of one millisecond are one step: one record is not enough. */
const BESIDE = 50;

function secondLatest(times: readonly number[]): number {
  const latest = Math.max(...times);
  return Math.max(...times.filter((time) => time < latest));
}

// ---- state ----------------------------------------------------------------------------------------------------------

/** The next change of time goes on from what is on screen. */
let isContinued = false;

function dispatch(input: TimeInput, how: "push" | "replace" = "push"): void {
  const before = time.value;
  const next = nextTime(before, input, { now_ms: serverNow(), shown_ms: shownNow(), speed: speed.value });
  if (next === before) return;
  isContinued = next.mode === "replaying";
  batch(() => {
    timeFault.value = "";
    hasCaughtUp.value = false;
    pausedAt.value = next.mode === "paused" ? next.at_ms : null;
    go(addressOfTime(next), how);
  });
  isContinued = false;
}

/** A relative moment is what it was when the page was opened, or the address changed to it. */
const resolved = { t: "", now_ms: 0 };

function stateNow(): TimeState {
  const { t, x } = address.value;
  if (t !== resolved.t) Object.assign(resolved, { t, now_ms: untracked(serverNow) });
  if (t) return timeOfAddress({ t, x }, resolved.now_ms);
  return pausedAt.value === null ? LIVE : { mode: "paused", at_ms: pausedAt.value };
}

function isSame(left: TimeState, right: TimeState): boolean {
  return JSON.stringify(left) === JSON.stringify(right);
}

export function startTimeline(): void {
  time.value = stateNow();
  speed.value = speedOf(address.value.x) ?? speed.value;
  start(time.value);
  startHistogram();
  effect(() => {
    const next = stateNow();
    untracked(() => follow(next));
  });
  effect(() => {
    const next = rangeNow();
    const before = range.peek();
    if (next.from_ms !== before.from_ms || next.width_ms !== before.width_ms) range.value = next;
  });
  effect(() => {
    const shownRange = range.value;
    const { topicFilters } = plan.value;
    untracked(() => count(shownRange, topicFilters));
  });
  effect(() => {
    if (Number.isFinite(address.value.window_ms)) return;
    const oldest_ms = histogram.value?.oldest_ms ?? null;
    untracked(() => setWholeSpan(span_ms(Infinity, oldest_ms, serverNow())));
  });
  followFilter();
  followReplay();
}

function follow(next: TimeState): void {
  if (isSame(next, time.value)) return;
  batch(() => {
    if (isPast(next)) pausedAt.value = null;
    if (next.mode === "replaying") speed.value = next.speed;
    time.value = next;
    setTime(next, isContinued);
  });
}

function followFilter(): void {
  let terms = address.value.terms.join(" ");
  effect(() => {
    const next = address.value.terms.join(" ");
    if (next === terms) return;
    terms = next;
    untracked(() => dispatch({ kind: "filter" }, "replace"));
  });
}

/** What the worker says of a replay: it is over, or this server has none. */
function followReplay(): void {
  effect(() => {
    const frame = timeFrame.value;
    if (!frame) return;
    untracked(() => {
      if (time.value.mode !== "replaying") return;
      if (frame.replayFault) {
        const isAbsent = frame.replayFault === NOT_AVAILABLE;
        const fault = isAbsent ? `Replay is ${NOT_AVAILABLE}.` : `The replay did not begin: ${frame.replayFault}`;
        go({ x: "" }, "replace");
        timeFault.value = fault;
      } else if (frame.hasCaughtUp) {
        dispatch({ kind: "caughtUp" });
        hasCaughtUp.value = true;
        setTimeout(() => (hasCaughtUp.value = false), CAUGHT_UP_MS);
      }
    });
  });
}
