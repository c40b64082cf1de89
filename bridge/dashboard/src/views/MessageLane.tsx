/** What a device sent, as a lane below its connection, over the same time. */
import { useEffect, useMemo } from "preact/hooks";
import { Counting } from "../app/histogram";
import { BUCKETS } from "../app/limits";
import { now, shown } from "../app/link";
import { inPast, range } from "../app/timeline";
import { bucketOf } from "../time/buckets";
import { barsOf, sentWords, unknownOf } from "../time/message-lane";

const HEIGHT = 20;
const EVERYTHING = ["#"];
const UNKNOWN_WORDS = { retention: "no longer kept", lost: "lost, if there was any", "not counted": "not counted" };

export function MessageLane({ id }: { id: string }) {
  const counting = useMemo(() => new Counting(id), [id]);
  useEffect(() => counting.start(), [counting]);
  const shownRange = range.value;
  useEffect(() => counting.count(shownRange, EVERYTHING), [counting, shownRange]);
  const histogram = counting.histogram.value;
  if (!histogram) return null;
  const end = Math.max(0, Math.min(BUCKETS, bucketOf(histogram.range, inPast.value ? shown.value : now.value) + 1));
  const words = sentWords(histogram, end);
  return (
    <figure class="sent">
      <svg viewBox={`0 0 ${BUCKETS} ${HEIGHT}`} preserveAspectRatio="none" role="img" aria-label={`What it sent in the window of the time bar: ${words}`}>
        {unknownOf(histogram, end).map((run) => (
          <rect key={run.from} class={`is-${run.why.replace(" ", "-")}`} x={run.from} width={run.to - run.from} y="0" height={HEIGHT}>
            <title>{UNKNOWN_WORDS[run.why]}</title>
          </rect>
        ))}
        <path d={barsOf(histogram, HEIGHT, end)} />
      </svg>
      <figcaption>
        From it: {words}
        {counting.fault.value ? ` (${counting.fault.value})` : ""}
      </figcaption>
    </figure>
  );
}
