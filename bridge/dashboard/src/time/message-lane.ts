/** The lane of a device's messages: bars of a histogram, and where nobody knows how many there were. Pure. */
import { BUCKETS } from "../app/limits";
import { barHeight, highest, lossAt, startOf, type Histogram } from "./buckets";
import { grouped, rate } from "./format";

export interface Unknown {
  /** Buckets, the end not included. */
  from: number;
  to: number;
  why: "retention" | "lost" | "not counted";
}

/** The outline of the bars in a box of BUCKETS by `height`, as a path of SVG; buckets from `end` on are not drawn. */
export function barsOf(histogram: Histogram, height: number, end: number): string {
  const most = highest(histogram);
  let path = "";
  for (const [bucket, count] of histogram.counts.slice(0, end).entries()) {
    if (count) path += `M${bucket} ${height}v-${barHeight(count, most, height).toFixed(1)}h.8V${height}z`;
  }
  return path;
}

/** Runs of buckets without a bar of which nobody can say that nothing was sent. */
export function unknownOf(histogram: Histogram, end: number): Unknown[] {
  const runs: Unknown[] = [];
  for (let bucket = 0; bucket < Math.min(end, BUCKETS); bucket += 1) {
    const count = histogram.counts[bucket];
    if (count) continue;
    const loss = lossAt(histogram, startOf(histogram.range, bucket));
    if (count !== null && !loss) continue;
    const why = loss ? (loss.reason === "retention" ? "retention" : "lost") : "not counted";
    const last = runs[runs.length - 1];
    if (last && last.to === bucket && last.why === why) last.to += 1;
    else runs.push({ from: bucket, to: bucket + 1, why });
  }
  return runs;
}

/** "1,204 messages, at most 4 /s"; what was not counted is said. */
export function sentWords(histogram: Histogram, end: number): string {
  const counts = histogram.counts.slice(0, end);
  const sum = counts.reduce<number>((total, count) => total + (count ?? 0), 0);
  const most = counts.reduce<number>((high, count) => Math.max(high, count ?? 0), 0);
  const isPartial = counts.includes(null);
  if (!sum) return isPartial ? "not counted yet" : "no message";
  const counted = `${isPartial ? "at least " : ""}${grouped(sum)} ${sum === 1 ? "message" : "messages"}`;
  return sum === 1 ? counted : `${counted}, at most ${rate((most * 1000) / histogram.range.width_ms)}`;
}
