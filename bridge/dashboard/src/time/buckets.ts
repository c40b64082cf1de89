/**
 * The histogram of the time bar: counts for the buckets of a range, asked for in pieces and kept when the range moves.
 * A bucket that was not counted is null, which is not the same as 0. Pure.
 */
import type { HistogramAnswer } from "../api/types";
import { BUCKETS } from "../app/limits";
import { mergeLosses, type LoggedLoss } from "./gaps";
import { grouped } from "./format";
import { endOf, type Range } from "./range";
import { lossWords } from "./words";

export interface Histogram {
  range: Range;
  /** One for each bucket; null where nobody counted yet. */
  counts: (number | null)[];
  losses: LoggedLoss[];
  /** Time of the oldest record that is kept; null while nothing is or nobody said. */
  oldest_ms: number | null;
}

/** A run of buckets that are to be counted. */
export interface Missing {
  from_ms: number;
  to_ms: number;
  buckets: number;
}

export function uncounted(range: Range, oldest_ms: number | null = null): Histogram {
  return { range, counts: new Array<number | null>(BUCKETS).fill(null), losses: [], oldest_ms };
}

/** The bucket that holds this time; it may lie outside of the range. */
export function bucketOf(range: Range, time_ms: number): number {
  return Math.floor((time_ms - range.from_ms) / range.width_ms);
}

export function startOf(range: Range, bucket: number): number {
  return range.from_ms + bucket * range.width_ms;
}

/** The same counts seen through another range: where both show the same buckets they are kept. */
export function movedTo(histogram: Histogram, range: Range): Histogram {
  const moved = uncounted(range, histogram.oldest_ms);
  if (range.width_ms !== histogram.range.width_ms) return moved;
  const shift = bucketOf(histogram.range, range.from_ms);
  moved.counts = moved.counts.map((_count, bucket) => histogram.counts[bucket + shift] ?? null);
  moved.losses = histogram.losses.filter((loss) => loss.to_ms > range.from_ms && loss.from_ms < endOf(range));
  return moved;
}

/** The buckets that may have grown since `since_ms`, up to the one that holds now; null when the range is before that. */
export function growing({ range }: Histogram, since_ms: number, now_ms: number): Missing | null {
  const first = Math.max(0, bucketOf(range, since_ms));
  const end = Math.min(BUCKETS, bucketOf(range, now_ms) + 1);
  return first < end ? { from_ms: startOf(range, first), to_ms: startOf(range, end), buckets: end - first } : null;
}

/** The runs of buckets that nobody counted, of those that begin before `now_ms`; the newest first. */
export function missingIn(histogram: Histogram, now_ms: number): Missing[] {
  const { range, counts } = histogram;
  const runs: Missing[] = [];
  let end = Math.min(BUCKETS, bucketOf(range, now_ms) + 1);
  while (end > 0) {
    if (counts[end - 1] !== null) {
      end -= 1;
      continue;
    }
    let start = end - 1;
    while (start > 0 && counts[start - 1] === null) start -= 1;
    runs.push({ from_ms: startOf(range, start), to_ms: startOf(range, end), buckets: end - start });
    end = start;
  }
  return runs;
}

/** Puts the answer to a request for `asked` in. A search that stopped counts up to `scanned_to`; the rest stays as it was. */
export function withAnswer(histogram: Histogram, asked: Missing, answer: HistogramAnswer): Histogram {
  const { range } = histogram;
  const first = bucketOf(range, asked.from_ms);
  const counted_ms = answer.complete ? asked.to_ms : Date.parse(answer.scanned_to ?? "") || asked.from_ms;
  const counts = histogram.counts.slice();
  // A bucket that was counted in part keeps what it had: it would look like a fall.
  const end = answer.complete ? first + asked.buckets : Math.min(first + asked.buckets, bucketOf(range, counted_ms));
  for (let bucket = Math.max(0, first); bucket < Math.min(end, BUCKETS); bucket += 1) counts[bucket] = 0;
  for (const { time, count } of answer.buckets) {
    const bucket = bucketOf(range, Date.parse(time) + range.width_ms / 2);
    if (bucket >= Math.max(0, first) && bucket < Math.min(end, BUCKETS)) counts[bucket] = (counts[bucket] ?? 0) + count;
  }
  const found = answer.gaps.map((gap): LoggedLoss => {
    const from_ms = timeOr(gap.from, 0);
    // At the edge of the bar a loss is cut: where it begins is not known.
    return { from_ms: from_ms <= range.from_ms ? 0 : from_ms, to_ms: timeOr(gap.to, asked.to_ms), reason: gap.reason };
  });
  return { range, counts, losses: mergeLosses([...histogram.losses, ...found]), oldest_ms: timeOr(answer.oldest, histogram.oldest_ms) };
}

function timeOr<Other>(text: string | null | undefined, other: Other): number | Other {
  const time = text ? Date.parse(text) : Number.NaN;
  return Number.isNaN(time) ? other : time;
}

export function highest(histogram: Histogram): number {
  let most = 0;
  for (const count of histogram.counts) if (count !== null && count > most) most = count;
  return most;
}

/** Height of a bar: the square root, so that a quiet hour is still seen beside a loud one. At least one pixel for one message. */
export function barHeight(count: number, most: number, height: number): number {
  if (count <= 0 || most <= 0) return 0;
  return Math.max(1, Math.sqrt(count / most) * height);
}

/** What the log cannot tell of a time: `retention` it does not keep it any more, any other reason it was lost. */
export function lossAt({ losses }: Histogram, time_ms: number): LoggedLoss | undefined {
  const found = losses.filter((loss) => time_ms >= loss.from_ms && time_ms < loss.to_ms);
  return found.find((loss) => loss.reason !== "retention") ?? found[0];
}

/** "812 messages in this minute": what the bar says about a moment. */
export function countWords(histogram: Histogram, time_ms: number): string {
  const { range, counts } = histogram;
  const count = counts[bucketOf(range, time_ms)];
  const loss = lossAt(histogram, time_ms);
  if (loss && !count) return loss.reason === "retention" ? "no longer kept" : `lost, if there was any: ${lossWords(loss.reason)}`;
  if (count === null || count === undefined) return "not counted";
  const number = count === 0 ? "no message" : count === 1 ? "1 message" : `${grouped(count)} messages`;
  return `${number} in ${widthWords(range.width_ms)}${loss ? ", not all are kept" : ""}`;
}

function widthWords(width_ms: number): string {
  if (width_ms === 60_000) return "this minute";
  if (width_ms === 3_600_000) return "this hour";
  if (width_ms === 86_400_000) return "this day";
  if (width_ms < 60_000) return `these ${Number((width_ms / 1000).toFixed(2))} s`;
  if (width_ms < 3_600_000) return `these ${Number((width_ms / 60_000).toFixed(1))} min`;
  if (width_ms < 86_400_000) return `these ${Number((width_ms / 3_600_000).toFixed(1))} h`;
  return `these ${Number((width_ms / 86_400_000).toFixed(1))} d`;
}
