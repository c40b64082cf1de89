/**
 * The stretch of time that the bar shows: a fixed number of buckets whose edges are multiples of their width, so that a
 * range that moves on with the clock shares its buckets with the one before. Pure.
 */
import { BUCKETS } from "../app/limits";

export interface Range {
  from_ms: number;
  /** Width of one bucket. */
  width_ms: number;
}

const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
const WHOLE_WIDTHS = [
  ...[1, 2, 5, 10, 15, 30].map((count) => count * SECOND),
  ...[1, 2, 5, 10, 15, 30].map((count) => count * MINUTE),
  ...[1, 2, 3, 6, 12].map((count) => count * HOUR),
  ...[1, 2, 7, 14, 28, 91, 364, 3640].map((count) => count * DAY),
];
/** While it is not known how much is kept. */
const UNKNOWN_SPAN_MS = DAY;
const SPAN_MS_MIN = 5 * MINUTE;
/** A moment that is brought into the range stands here, with some of what follows to its right. */
const PLACE = 0.75;

/** The span of a window; "all kept" goes from the oldest record to now. */
export function span_ms(window_ms: number, oldest_ms: number | null, now_ms: number): number {
  if (Number.isFinite(window_ms)) return window_ms;
  return oldest_ms === null ? UNKNOWN_SPAN_MS : Math.max(SPAN_MS_MIN, now_ms - oldest_ms);
}

/** A window is cut into even buckets; "all kept" grows, so its buckets get the next whole width. */
export function widthOf(window_ms: number, oldest_ms: number | null, now_ms: number): number {
  const span = span_ms(window_ms, oldest_ms, now_ms);
  if (Number.isFinite(window_ms)) return span / BUCKETS;
  return WHOLE_WIDTHS.find((width) => width * (BUCKETS - 1) >= span) ?? Math.ceil(span / (BUCKETS - 1));
}

export function endOf(range: Range): number {
  return range.from_ms + range.width_ms * BUCKETS;
}

/** The range whose last bucket holds `end_ms`. */
export function rangeEnding(end_ms: number, width_ms: number): Range {
  return { from_ms: (Math.floor(end_ms / width_ms) + 1 - BUCKETS) * width_ms, width_ms };
}

export function isIn(range: Range, time_ms: number): boolean {
  return time_ms >= range.from_ms && time_ms < endOf(range);
}

/** 0 at the left edge, 1 at the right one. */
export function placeOf(range: Range, time_ms: number): number {
  return (time_ms - range.from_ms) / (range.width_ms * BUCKETS);
}

export function timeAt(range: Range, place: number): number {
  return range.from_ms + place * range.width_ms * BUCKETS;
}

/** Buckets of another width, with what is at `around_ms` staying where it is; never beyond the one that holds now. */
export function zoomed(range: Range, width_ms: number, around_ms: number, now_ms: number): Range {
  const from_ms = around_ms - placeOf(range, around_ms) * width_ms * BUCKETS;
  return bounded({ from_ms: Math.round(from_ms / width_ms) * width_ms, width_ms }, now_ms);
}

/** Moved by a share of itself: -0.5 is half a range back. */
export function panned(range: Range, share: number, now_ms: number): Range {
  const buckets = Math.round(share * BUCKETS);
  return bounded({ ...range, from_ms: range.from_ms + buckets * range.width_ms }, now_ms);
}

/** The range itself when it shows this moment, else one that does. */
export function showing(range: Range, time_ms: number, now_ms: number): Range {
  if (isIn(range, time_ms)) return range;
  const from_ms = time_ms - PLACE * range.width_ms * BUCKETS;
  return bounded({ ...range, from_ms: Math.round(from_ms / range.width_ms) * range.width_ms }, now_ms);
}

/**
 * The range for a moment that has passed: the one before, as long as the moment is in it. A replay (`isMoving`) that runs
 * out at its right edge turns the page by half.
 */
export function rangeAt(before: Range, width_ms: number, at_ms: number, now_ms: number, isMoving: boolean): Range {
  const range = before.width_ms === width_ms ? before : zoomed(before, width_ms, at_ms, now_ms);
  if (isIn(range, at_ms)) return range;
  const turned = panned(range, 0.5, now_ms);
  return isMoving && isIn(turned, at_ms) ? turned : showing(range, at_ms, now_ms);
}

function bounded(range: Range, now_ms: number): Range {
  const last = rangeEnding(now_ms, range.width_ms);
  return range.from_ms > last.from_ms ? last : range;
}
