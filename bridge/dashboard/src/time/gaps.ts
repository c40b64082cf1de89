/**
 * Where a plotted line must break: at losses, and (dotted) where a topic was silent for long. Pure.
 */
import { SILENT_INTERVALS } from "../app/limits";

export type GapReason = "retention" | "epoch" | "overflow" | "unknown";

export interface Gap {
  id: number;
  /** Time of the last record before, and of the first one after; null while none has come. */
  from_ms: number;
  to_ms: number | null;
  lost: number | null;
  reason: GapReason;
}

/** A loss as the log tells of it. `retention`: no longer kept, which is not the same as lost. */
export interface LoggedLoss {
  from_ms: number;
  to_ms: number;
  reason: GapReason;
}

export interface Line {
  times: number[];
  values: (number | null)[];
  /** Losses that fall between two points of this line. */
  breaks: number;
  /** Pairs of points with long silence between them: [from, to] as indexes into `times`. */
  silences: [number, number][];
}

/**
 * The usual distance of neighbours: nine of ten are not longer. A few outages do not move it, and a topic that comes
 * irregularly is not called silent all the time. NaN with fewer than two points.
 */
export function usualInterval_ms(times: readonly number[]): number {
  if (times.length < 2) return Number.NaN;
  const step = Math.max(1, Math.floor(times.length / 64));
  const distances: number[] = [];
  for (let index = 1; index < times.length; index += step) distances.push((times[index] ?? 0) - (times[index - 1] ?? 0));
  distances.sort((left, right) => left - right);
  return distances[Math.ceil(distances.length * 0.9) - 1] ?? Number.NaN;
}

/**
 * Puts an empty point into the line at each gap and at each long silence. `times` rise; `gaps` are in order.
 * A gap belongs between two points when the first is not after its start and the second is after it.
 */
export function breakLine(times: readonly number[], values: readonly (number | null)[], gaps: readonly Gap[]): Line {
  const line: Line = { times: [], values: [], breaks: 0, silences: [] };
  const silent_ms = Math.max(usualInterval_ms(times) * SILENT_INTERVALS, 1000);
  let next = 0;
  for (let index = 0; index < times.length; index += 1) {
    const time = times[index] ?? 0;
    if (index > 0) {
      const previous = times[index - 1] ?? 0;
      while (next < gaps.length && (gaps[next]?.from_ms ?? 0) < previous) next += 1;
      const isLoss = next < gaps.length && (gaps[next]?.from_ms ?? 0) < time;
      if (isLoss) line.breaks += 1;
      const isSilent = !isLoss && time - previous > silent_ms;
      if (isSilent) line.silences.push([line.times.length - 1, line.times.length + 1]);
      if (isLoss || isSilent) {
        line.times.push(previous + (time - previous) / 2);
        line.values.push(null);
      }
    }
    line.times.push(time);
    line.values.push(values[index] ?? null);
  }
  return line;
}

/** Losses in order, with those of one reason that touch made one: pieces of a histogram cut them at their edges. */
export function mergeLosses(losses: readonly LoggedLoss[]): LoggedLoss[] {
  const merged: LoggedLoss[] = [];
  for (const loss of [...losses].sort((left, right) => left.from_ms - right.from_ms)) {
    const before = merged.findLast((other) => other.reason === loss.reason);
    if (before && loss.from_ms <= before.to_ms) before.to_ms = Math.max(before.to_ms, loss.to_ms);
    else merged.push({ ...loss });
  }
  return merged;
}

/**
 * What this page noticed itself and what the log tells, each loss once and in order. The log's losses get negative ids.
 * Both may know of the same loss: the page then knows the records around it, and its account stays. A loss of the log that
 * reaches back beyond `from_ms` has no beginning that could be marked: before a stream in memory began there may have been
 * nothing.
 */
export function allGaps(noticed: readonly Gap[], logged: readonly LoggedLoss[], from_ms: number): Gap[] {
  const others = logged
    .filter((loss) => loss.reason !== "retention" && loss.from_ms > from_ms)
    .filter((loss) => !noticed.some((gap) => gap.reason === loss.reason && loss.from_ms <= (gap.to_ms ?? Infinity) && loss.to_ms >= gap.from_ms))
    .map((loss, index): Gap => ({ id: -1 - index, from_ms: loss.from_ms, to_ms: loss.to_ms, lost: null, reason: loss.reason }));
  return [...noticed, ...others].sort((left, right) => left.from_ms - right.from_ms);
}
