/** Small multiples: the fields of the selected branch, or six that change. All of them show the same span of time. */
import { useComputed } from "@preact/signals";
import { useRef } from "preact/hooks";
import { fields, plotBuffer, plotTick, retryHistory, shown, shownNow, stale, tree, treeFault } from "../app/link";
import { address, go } from "../app/router";
import { inPast } from "../app/timeline";
import { Plot, firstFrom, type Domain } from "../parts/Plot";
import { isDrawn } from "../store/profiles";
import type { FieldFrame } from "../stream/messages";
import { age, clockTime, dayTime, grouped, rate } from "../time/format";
import { WINDOWS, windowWords } from "../time/windows";
import { NothingThen } from "./NothingThen";

/** A plot of the first seconds of a new server still has a time axis worth the name. */
const SPAN_MS_MIN = 30_000;
/** The right edge moves in steps of about a pixel: between them a plot without a new point is not drawn again. */
const STEPS = 400;
const STEP_MS_MIN = 100;

/** From the oldest point that any plot has (or the window's start) to the moment on screen: one timeline for all. */
function domainOf(list: readonly FieldFrame[], window_ms: number, before: Domain | null): Domain {
  const now_ms = shownNow();
  const from_ms = now_ms - window_ms;
  let oldest_ms = now_ms - SPAN_MS_MIN;
  for (const field of list) {
    const buffer = plotBuffer(field.id);
    const time = buffer?.times[firstFrom(buffer.times, from_ms)];
    if (time !== undefined && time < oldest_ms) oldest_ms = time;
  }
  const start_ms = Math.max(from_ms, oldest_ms);
  const step_ms = Math.max(STEP_MS_MIN, (now_ms - start_ms) / STEPS);
  const isSame = before && now_ms <= before.to_ms && now_ms > before.to_ms - 2 * step_ms && Math.abs(start_ms - before.from_ms) < 2 * step_ms;
  return isSame ? before : { from_ms: start_ms, to_ms: now_ms + step_ms };
}

export function ValuesPanel() {
  const values = fields.value;
  const { branch } = address.value;
  const before = useRef<Domain | null>(null);
  const domain = useComputed(() => {
    plotTick.value;
    shown.value;
    before.current = domainOf(fields.value?.list ?? [], address.value.window_ms, before.current);
    return before.current;
  });
  const list = values?.list ?? [];
  return (
    <section class="panel values" aria-busy={stale.value.values} aria-label="Values">
      <div class="panel-head">
        <h2>{branch || "Values"}</h2>
        <span class="meta">{values ? countWords(list.length, values.total, branch !== "") : ""}</span>
        {branch ? (
          <button class="button" aria-label="Show values of all topics" onClick={() => go({ branch: "" })}>
            ✕
          </button>
        ) : null}
      </div>
      {list.length === 0 ? (
        <Empty isLoading={!values} branch={branch} />
      ) : (
        <div class="tiles">
          {list.map((field) => (
            <Tile key={field.id} field={field} domain={domain.value} />
          ))}
        </div>
      )}
    </section>
  );
}

function countWords(shown: number, total: number, isBranch: boolean): string {
  if (total === 0) return "";
  if (shown === total) return total === 1 ? "1 field" : `${grouped(total)} fields`;
  return isBranch ? `${shown} of ${grouped(total)} fields` : `${shown} that change, of ${grouped(total)} fields`;
}

function Empty({ isLoading, branch }: { isLoading: boolean; branch: string }) {
  if (isLoading) return <p class="reason late">Loading values</p>;
  if (treeFault.value) return <p class="reason">Fields are shown when the topics of this moment are known.</p>;
  if (inPast.value && tree.value?.isEmpty) return <NothingThen what="message" />;
  if (!branch && tree.value?.isEmpty) return <p class="reason">No values for this filter.</p>;
  if (!branch) return <p class="reason">No message has a number or a state to plot yet. The messages are below.</p>;
  return (
    <div class="reason">
      <p>No message under {branch} has a field yet, or the level does not exist.</p>
      <button class="button link" onClick={() => go({ branch: "" })}>
        Show all topics
      </button>
    </div>
  );
}

function Tile({ field, domain }: { field: FieldFrame; domain: Domain }) {
  const isPlot = isDrawn(field.kind);
  return (
    <article class="tile" aria-label={`${field.label} of ${field.topic}`}>
      <div class="tile-head">
        <h3 title={`${field.topic}${field.pointer ? `  ${field.pointer}` : ""}`}>
          {field.label} <span class="from">{origin(field)}</span>
        </h3>
        {isPlot ? <Now field={field} /> : null}
      </div>
      {isPlot ? <Body field={field} domain={domain} /> : <TextValue field={field} />}
    </article>
  );
}

/** The last levels of the topic say where a value is from; those before are in the tree. */
function origin(field: FieldFrame): string {
  const levels = field.topic.split("/");
  if (!field.pointer) levels.pop();
  return levels.slice(-2).join("/");
}

/** After so long without a message a value is shown with its age, in grey: it may not be true any more. */
const OLD_MS = 60_000;

function Now({ field }: { field: FieldFrame }) {
  const elapsed_ms = shown.value - field.lastTime_ms;
  const isOld = elapsed_ms > OLD_MS;
  return (
    <>
      {isOld ? <span class="old-age">{age(elapsed_ms)} ago</span> : null}
      {field.kind === "counter" ? <span class="muted">{counterRate(field)}</span> : null}
      <span class={`now ${isOld ? "is-old" : ""}`}>
        {field.value}
        {field.unit ? <span class="unit">{field.unit}</span> : null}
      </span>
    </>
  );
}

/** How fast a counter rises, over the last minute of its points. */
function counterRate(field: FieldFrame): string {
  const buffer = plotBuffer(field.id);
  const last = buffer?.times.length ? buffer.times.length - 1 : -1;
  if (!buffer || last < 1) return "";
  const first = Math.min(last - 1, firstFrom(buffer.times, (buffer.times[last] ?? 0) - 60_000));
  const seconds = ((buffer.times[last] ?? 0) - (buffer.times[first] ?? 0)) / 1000;
  const rise = (buffer.values[last] ?? 0) - (buffer.values[first] ?? 0);
  return seconds > 0 && rise >= 0 ? `+${rate(rise / seconds)}` : "";
}

function Body({ field, domain }: { field: FieldFrame; domain: Domain }) {
  const { window_ms } = address.value;
  const buffer = plotBuffer(field.id);
  const hasPoints = buffer !== undefined && firstFrom(buffer.times, domain.from_ms) < buffer.times.length;
  if (hasPoints) return <Plot field={field} domain={domain} />;
  if (field.history === "loading") {
    return (
      <div class="plot">
        <p class="reason late">
          Loading {Number.isFinite(window_ms) ? `${clockTime(domain.to_ms - window_ms, false)} to ${clockTime(domain.to_ms, false)}` : "all that is kept"}
        </p>
      </div>
    );
  }
  if (field.history === "failed") {
    return (
      <div class="plot">
        <div class="reason">
          <span>History did not load: {field.fault}</span>
          <button class="button link" onClick={() => retryHistory(field.topic)}>
            Try again
          </button>
        </div>
      </div>
    );
  }
  const wider = WINDOWS.find((entry) => entry.ms > domain.to_ms - field.lastTime_ms);
  return (
    <div class="plot">
      <div class="reason">
        <span>
          No message in {windowWords(window_ms)}
          {inPast.value ? " before this moment" : ""}. The latest was at {dayTime(field.lastTime_ms, domain.to_ms)}.
        </span>
        {wider ? (
          <button class="button link" onClick={() => go({ window_ms: wider.ms })}>
            Show {wider.words}
          </button>
        ) : null}
      </div>
    </div>
  );
}

function TextValue({ field }: { field: FieldFrame }) {
  return (
    <p class="text-value">
      {field.value || <span class="muted">empty</span>} <span class="muted">{age(shown.value - field.lastTime_ms)} ago</span>
    </p>
  );
}
