/**
 * How many messages there were: a histogram over the range of the time bar, asked for in pieces and kept while the bar
 * moves on. The newest buckets are counted again now and then, but not while the page is hidden.
 */
import { signal } from "@preact/signals";
import { ApiClient, ApiError, faultOf } from "../api/client";
import { growing, missingIn, movedTo, uncounted, withAnswer, type Histogram, type Missing } from "../time/buckets";
import { endOf, type Range } from "../time/range";
import { HISTOGRAM_MS_MAX, HISTOGRAM_MS_MIN, HISTOGRAM_REQUESTS_MAX, HISTOGRAM_SETTLE_MS } from "./limits";
import { serverNow } from "./link";

const api = new ApiClient(new URL("api/v1/", document.baseURI).href);

/** Counts for one range, filter and client after another. */
export class Counting {
  readonly histogram = signal<Histogram | null>(null);
  /** Why there is none, or why it is not complete. */
  readonly fault = signal("");
  private topicFilters: readonly string[] = [];
  private abort = new AbortController();
  private again: ReturnType<typeof setTimeout> | undefined;
  /** This server has no histogram: asked once, not every few seconds. */
  private isMissing = false;
  /** Buckets that ended before this will not grow any more. */
  private settled_ms = 0;

  /** `clientId`: only what this client sent. */
  constructor(private readonly clientId = "") {}

  /** Another range or another filter: what is known stays, the rest is counted. */
  count(range: Range, filters: readonly string[]): void {
    const known = this.histogram.value;
    if (!known || filters.join(" ") !== this.topicFilters.join(" ")) {
      this.topicFilters = filters;
      this.histogram.value = uncounted(range);
    } else if (known.range !== range) this.histogram.value = movedTo(known, range);
    else return;
    void this.fill();
  }

  /** Counts while the page is seen; what it returns ends that. */
  start(): () => void {
    const onVisibility = (): void => void this.fill();
    document.addEventListener("visibilitychange", onVisibility);
    return () => {
      document.removeEventListener("visibilitychange", onVisibility);
      this.abort.abort();
      clearTimeout(this.again);
    };
  }

  private async fill(): Promise<void> {
    this.abort.abort();
    clearTimeout(this.again);
    if (this.isMissing || document.hidden || !this.histogram.value) return;
    this.abort = new AbortController();
    const { signal } = this.abort;
    const now_ms = serverNow();
    try {
      await this.ask(growing(this.histogram.value, this.settled_ms, now_ms), signal);
      for (let request = 0; request < HISTOGRAM_REQUESTS_MAX; request += 1) {
        if (signal.aborted) return;
        if (!(await this.ask(missingIn(this.histogram.value, now_ms)[0] ?? null, signal))) break;
      }
      if (signal.aborted) return;
      this.settled_ms = now_ms - HISTOGRAM_SETTLE_MS;
      this.fault.value = missingIn(this.histogram.value, now_ms).length ? "the server stopped counting; a narrower window is less work" : "";
    } catch (error) {
      if (signal.aborted) return;
      this.isMissing = error instanceof ApiError && error.isNotAvailable;
      this.fault.value = faultOf(error);
    }
    const { range } = this.histogram.value;
    if (this.isMissing || endOf(range) < this.settled_ms) return;
    this.again = setTimeout(() => void this.fill(), Math.min(HISTOGRAM_MS_MAX, Math.max(HISTOGRAM_MS_MIN, range.width_ms)));
  }

  /** Whether it is worth asking again: there was something to ask, and the server counted at least one bucket of it. */
  private async ask(asked: Missing | null, signal: AbortSignal): Promise<boolean> {
    if (!asked) return false;
    const iso = (time_ms: number): string => new Date(time_ms).toISOString();
    const answer = await api.histogram(this.topicFilters, iso(asked.from_ms), iso(asked.to_ms), asked.buckets, this.clientId, signal);
    const known = this.histogram.value;
    if (signal.aborted || !known) return false;
    this.histogram.value = withAnswer(known, asked, answer);
    return answer.complete || (Date.parse(answer.scanned_to ?? "") || 0) > asked.from_ms + known.range.width_ms;
  }
}

const bar = new Counting();
export const { histogram, fault: histogramFault } = bar;

/** For the time bar; as `Counting.count`. */
export function count(range: Range, filters: readonly string[]): void {
  bar.count(range, filters);
}

export function startHistogram(): void {
  bar.start();
}
