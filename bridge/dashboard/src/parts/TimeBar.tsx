/**
 * The bar: a histogram of the time around the moment on screen, and a slider on it. Three kinds of empty look different:
 * nothing was sent (a base line), no longer kept (hatched, up to the oldest record), lost (violet).
 */
import { useComputed, useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { histogram, histogramFault } from "../app/histogram";
import { BUCKETS } from "../app/limits";
import { now, shown } from "../app/link";
import { colour, theme } from "../app/theme";
import { allLosses, countedWords, endScrub, goLive, goTo, inPast, range, scrub, scrubbed, step, time, zoom } from "../app/timeline";
import { barHeight, bucketOf, countWords, highest, type Histogram } from "../time/buckets";
import { clockTime, dayWords } from "../time/format";
import { endOf, placeOf, timeAt, type Range } from "../time/range";
import { ticksOf } from "../time/ticks";
import { gapWords } from "../time/words";

/** A page key moves by a tenth of the bar. */
const PAGE_BUCKETS = BUCKETS / 10;

export function TimeBar() {
  const slider = useRef<HTMLDivElement>(null);
  const hovered = useSignal<number | null>(null);
  const isDragged = useRef(false);
  const head_ms = useComputed(() => scrubbed.value ?? (inPast.value || time.value.mode === "paused" ? shown.value : now.value));

  const timeOf = (event: PointerEvent | WheelEvent): number => {
    const box = slider.current?.getBoundingClientRect();
    if (!box?.width) return head_ms.peek();
    return timeAt(range.peek(), Math.max(0, Math.min(1, (event.clientX - box.left) / box.width)));
  };

  useEffect(() => {
    const element = slider.current;
    // Preact would listen passively, and the browser would zoom the whole page.
    const onWheel = (event: WheelEvent): void => {
      if (!event.ctrlKey) return;
      event.preventDefault();
      zoom(event.deltaY < 0 ? -1 : 1, timeOf(event));
    };
    element?.addEventListener("wheel", onWheel, { passive: false });
    return () => element?.removeEventListener("wheel", onWheel);
  }, []);

  const onKey = (event: KeyboardEvent): void => {
    const run = ((): (() => void) | null => {
      switch (event.key) {
        case "ArrowLeft":
        case "ArrowDown":
          return () => step(-1);
        case "ArrowRight":
        case "ArrowUp":
          return () => step(1);
        case "PageDown":
          return () => step(-PAGE_BUCKETS);
        case "PageUp":
          return () => step(PAGE_BUCKETS);
        case "Home":
          return () => goTo(Math.max(range.value.from_ms, histogram.value?.oldest_ms ?? 0));
        case "End":
          return goLive;
        default:
          return null;
      }
    })();
    if (!run) return;
    event.preventDefault();
    run();
  };

  const shownRange = range.value;
  const place = placeOf(shownRange, head_ms.value);
  const hover_ms = hovered.value;
  return (
    <div class="timebar">
      <div
        ref={slider}
        class="slider"
        role="slider"
        tabIndex={0}
        aria-label="Time"
        aria-valuemin={shownRange.from_ms}
        aria-valuemax={Math.min(endOf(shownRange), Math.max(now.value, shownRange.from_ms))}
        aria-valuenow={Math.round(head_ms.value)}
        aria-valuetext={valueText(head_ms.value)}
        onKeyDown={onKey}
        onPointerDown={(event) => {
          if (event.button !== 0) return;
          slider.current?.setPointerCapture(event.pointerId);
          isDragged.current = true;
          scrub(timeOf(event));
        }}
        onPointerMove={(event) => {
          hovered.value = timeOf(event);
          if (isDragged.current) scrub(timeOf(event));
        }}
        onPointerUp={() => {
          if (isDragged.current) endScrub();
          isDragged.current = false;
        }}
        onPointerCancel={() => {
          if (isDragged.current) endScrub();
          isDragged.current = false;
        }}
        onPointerLeave={() => (hovered.value = null)}
      >
        <Bars />
        {place >= 0 && place <= 1 && time.value.mode !== "live" ? <span class="head" style={{ left: `${place * 100}%` }} /> : null}
        {histogramFault.value ? <span class="fault">{faultWords()}</span> : null}
      </div>
      <Ticks shownRange={shownRange} />
      <Marks shownRange={shownRange} />
      {hover_ms !== null && !isDragged.current ? (
        <span class="hover" aria-hidden="true" style={{ left: `${placeOf(shownRange, hover_ms) * 100}%` }}>
          {clockTime(hover_ms, false)} · {histogram.value ? countWords(histogram.value, hover_ms) + countedWords.value : ""}
        </span>
      ) : null}
    </div>
  );
}

/** "03:12:07, 812 messages in this minute"; now has no bucket that is full. */
function valueText(time_ms: number): string {
  const clock = clockTime(time_ms, false);
  if (time.value.mode === "live" && scrubbed.value === null) return `${clock}, live`;
  return histogram.value ? `${clock}, ${countWords(histogram.value, time_ms)}${countedWords.value}` : clock;
}

function faultWords(): string {
  const fault = histogramFault.value;
  return fault.startsWith("not available") ? `Message counts are ${fault}` : `Not all messages are counted: ${fault}`;
}

function Bars() {
  const canvas = useRef<HTMLCanvasElement>(null);
  const draw = (): void => {
    const element = canvas.current;
    const known = histogram.peek();
    if (!element || !element.clientWidth) return;
    const ratio = devicePixelRatio;
    const [width, height] = [Math.round(element.clientWidth * ratio), Math.round(element.clientHeight * ratio)];
    if (element.width !== width) element.width = width;
    if (element.height !== height) element.height = height;
    const context = element.getContext("2d");
    if (!context) return;
    context.clearRect(0, 0, width, height);
    // A range that has just changed is drawn when its histogram is there: in the same turn.
    if (known) drawHistogram(context, known, width, height, headBucket(known.range));
  };
  useEffect(() => {
    const element = canvas.current;
    if (!element) return;
    const observer = new ResizeObserver(draw);
    observer.observe(element);
    return () => observer.disconnect();
  }, []);
  const isPaused = time.value.mode === "paused";
  useEffect(draw, [histogram.value, theme.value, isPaused, inPast.value ? bucketOf(range.value, scrubbed.value ?? shown.value) : BUCKETS]);
  return <canvas ref={canvas} aria-hidden="true" />;
}

/** Bars after the moment on screen are of its future. */
function headBucket(shownRange: Range): number {
  return inPast.peek() ? bucketOf(shownRange, scrubbed.peek() ?? shown.peek()) : BUCKETS;
}

function drawHistogram(context: CanvasRenderingContext2D, known: Histogram, width: number, height: number, head: number): void {
  const { counts, losses } = known;
  const ratio = devicePixelRatio;
  const step = width / BUCKETS;
  const base = height - ratio;
  const most = highest(known);
  const at = (time_ms: number): number => Math.max(0, Math.min(width, placeOf(known.range, time_ms) * width));
  const bar = colour(time.peek().mode === "paused" ? "control" : "accent");
  const line = colour("control");
  for (let bucket = 0; bucket < BUCKETS; bucket += 1) {
    const count = counts[bucket];
    if (count === null || count === undefined) continue;
    const left = Math.round(bucket * step);
    const right = Math.max(left + ratio, Math.round((bucket + 1) * step) - (step > 3 * ratio ? ratio : 0));
    context.globalAlpha = 0.6;
    context.fillStyle = line;
    context.fillRect(left, base, Math.round((bucket + 1) * step) - left, ratio);
    if (count === 0) continue;
    const tall = barHeight(count, most, height - 3 * ratio);
    context.globalAlpha = bucket <= head ? 0.7 : 0.25;
    context.fillStyle = bar;
    context.fillRect(left, base - Math.max(tall, 2 * ratio), right - left, Math.max(tall, 2 * ratio));
  }
  context.globalAlpha = 1;
  for (const loss of losses) {
    const left = at(loss.from_ms);
    // A loss of seconds on a bar of days is still seen.
    const right = Math.max(at(loss.to_ms), left + 3 * ratio);
    if (loss.reason === "retention") fill(context, left, right, height, hatch(context, colour("control"), 6 * ratio));
    // Before a stream in memory began there may have been nothing: lines, and not the mark of a loss that is known.
    else if (loss.from_ms === 0) fill(context, left, right, height, hatch(context, colour("gap"), 6 * ratio));
    else fill(context, left, right, height, dots(context, colour("gap"), 3 * ratio));
  }
}

function fill(context: CanvasRenderingContext2D, left: number, right: number, height: number, style: CanvasPattern | string): void {
  context.fillStyle = style;
  context.fillRect(left, 0, right - left, height);
}

/** Diagonal lines: nothing is kept from then. */
function hatch(context: CanvasRenderingContext2D, stroke: string, size: number): CanvasPattern | string {
  const tile = new OffscreenCanvas(size, size);
  const lines = tile.getContext("2d");
  if (!lines) return stroke;
  lines.strokeStyle = stroke;
  lines.globalAlpha = 0.55;
  lines.lineWidth = size / 6;
  lines.beginPath();
  for (const shift of [-size, 0, size]) {
    lines.moveTo(shift, size);
    lines.lineTo(shift + size, 0);
  }
  lines.stroke();
  return context.createPattern(tile, "repeat") ?? stroke;
}

/** A dense grid of dots: messages were lost here. */
function dots(context: CanvasRenderingContext2D, colourOfDots: string, size: number): CanvasPattern | string {
  const tile = new OffscreenCanvas(size, size);
  const marks = tile.getContext("2d");
  if (!marks) return colourOfDots;
  marks.fillStyle = colourOfDots;
  marks.globalAlpha = 0.35;
  marks.fillRect(0, 0, size, size);
  marks.globalAlpha = 1;
  marks.fillRect(0, 0, size / 2, size / 2);
  return context.createPattern(tile, "repeat") ?? colourOfDots;
}

function Ticks({ shownRange }: { shownRange: Range }) {
  const box = useRef<HTMLDivElement>(null);
  const width = useSignal(600);
  useEffect(() => {
    const element = box.current;
    if (!element) return;
    const observer = new ResizeObserver(() => (width.value = element.clientWidth));
    observer.observe(element);
    return () => observer.disconnect();
  }, []);
  return (
    <div class="ticks" ref={box} aria-hidden="true">
      {ticksOf(shownRange, width.value).map((tick) => (
        <span key={tick.time_ms} style={{ left: `${placeOf(shownRange, tick.time_ms) * 100}%` }}>
          {tick.isDay ? dayWords(tick.time_ms) : clockTime(tick.time_ms, false).slice(0, tick.hasSeconds ? 8 : 5)}
        </span>
      ))}
    </div>
  );
}

/** One ╳ for each loss in the range; a press on it goes there. */
function Marks({ shownRange }: { shownRange: Range }) {
  const marks = allLosses.value.filter((gap) => (gap.to_ms ?? Infinity) > shownRange.from_ms && gap.from_ms < endOf(shownRange));
  if (marks.length === 0) return null;
  return (
    <div class="marks" role="list" aria-label="Losses in this window">
      {marks.map((gap) => (
        <span role="listitem" key={gap.id} style={{ left: `${placeOf(shownRange, Math.max(gap.from_ms, shownRange.from_ms)) * 100}%` }}>
          <button class="mark" title={gapWords(gap)} aria-label={`${gapWords(gap)}. Go there`} onClick={() => goTo(gap.from_ms)}>
            ╳
          </button>
        </span>
      ))}
    </div>
  );
}
