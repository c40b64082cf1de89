/**
 * How many messages there were: the histogram of the time bar for the current filter, asked for in pieces and kept while
 * the bar moves on. The newest buckets are counted again now and then, but not while the page is hidden.
 */
import { signal } from "@preact/signals";
import { ApiClient, ApiError, faultOf } from "../api/client";
import { growing, missingIn, movedTo, uncounted, withAnswer, type Histogram, type Missing } from "../time/buckets";
import { endOf, type Range } from "../time/range";
import { HISTOGRAM_MS_MAX, HISTOGRAM_MS_MIN, HISTOGRAM_REQUESTS_MAX, HISTOGRAM_SETTLE_MS } from "./limits";
import { serverNow } from "./link";

export const histogram = signal<Histogram | null>(null);
/** Why there is none, or why it is not complete. */
export const histogramFault = signal("");

const api = new ApiClient(new URL("api/v1/", document.baseURI).href);

let topicFilters: readonly string[] = [];
let abort = new AbortController();
let again: ReturnType<typeof setTimeout> | undefined;
/** This server has no histogram: asked once, not every few seconds. */
let isMissing = false;
/** Buckets that ended before this will not grow any more. */
let settled_ms = 0;

/** Another range or another filter: what is known stays, the rest is counted. */
export function count(range: Range, filters: readonly string[]): void {
  const known = histogram.value;
  if (!known || filters.join(" ") !== topicFilters.join(" ")) {
    topicFilters = filters;
    histogram.value = uncounted(range);
  } else if (known.range !== range) histogram.value = movedTo(known, range);
  else return;
  void fill();
}

export function startHistogram(): void {
  document.addEventListener("visibilitychange", () => void fill());
}

async function fill(): Promise<void> {
  abort.abort();
  clearTimeout(again);
  if (isMissing || document.hidden || !histogram.value) return;
  abort = new AbortController();
  const { signal } = abort;
  const now_ms = serverNow();
  try {
    await ask(growing(histogram.value, settled_ms, now_ms), signal);
    for (let request = 0; request < HISTOGRAM_REQUESTS_MAX; request += 1) {
      if (signal.aborted) return;
      if (!(await ask(missingIn(histogram.value, now_ms)[0] ?? null, signal))) break;
    }
    if (signal.aborted) return;
    settled_ms = now_ms - HISTOGRAM_SETTLE_MS;
    histogramFault.value = missingIn(histogram.value, now_ms).length ? "the server stopped counting; a narrower window is less work" : "";
  } catch (error) {
    if (signal.aborted) return;
    isMissing = error instanceof ApiError && error.isNotAvailable;
    histogramFault.value = faultOf(error);
  }
  const { range } = histogram.value;
  if (isMissing || endOf(range) < settled_ms) return;
  again = setTimeout(() => void fill(), Math.min(HISTOGRAM_MS_MAX, Math.max(HISTOGRAM_MS_MIN, range.width_ms)));
}

/** Whether it is worth asking again: there was something to ask, and the server counted at least one bucket of it. */
async function ask(asked: Missing | null, signal: AbortSignal): Promise<boolean> {
  if (!asked) return false;
  const iso = (time_ms: number): string => new Date(time_ms).toISOString();
  const answer = await api.histogram(topicFilters, iso(asked.from_ms), iso(asked.to_ms), asked.buckets, signal);
  const known = histogram.value;
  if (signal.aborted || !known) return false;
  histogram.value = withAnswer(known, asked, answer);
  return answer.complete || (Date.parse(answer.scanned_to ?? "") || 0) > asked.from_ms + known.range.width_ms;
}
