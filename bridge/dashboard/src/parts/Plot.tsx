/**
 * One field over time: a line for numbers, coloured spans for states. A loss breaks the line and stands as a violet band,
 * long silence is dotted. The point under the cursor can be moved by the arrow keys and is spoken; `v` shows a table.
 */
import { useSignal, useSignalEffect } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import { plotBuffer, plotTick, type PlotBuffer } from "../app/link";
import { colour, theme } from "../app/theme";
import { allLosses } from "../app/timeline";
import type { FieldFrame } from "../stream/messages";
import { clockTime, measured } from "../time/format";
import { breakLine, type Gap, type Line } from "../time/gaps";
import { drawBand, drawGaps, drawLine, drawStates, faded, type Band, type Source } from "./plot-canvas";

export interface Domain {
  from_ms: number;
  to_ms: number;
}

const TABLE_ROWS = 50;
const FONT = '11px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif';

/** Cursors of all plots move together. */
const SYNC = "values";

export function Plot({ field, domain }: { field: FieldFrame; domain: Domain }) {
  const box = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const line = useRef<Line>({ times: [], values: [], breaks: 0, silences: [] });
  const band = useRef<Band>({ times: [], low: [], high: [] });
  const range = useRef(domain);
  range.current = domain;
  const drawn = useRef<{ made: uPlot; buffer: PlotBuffer; version: number; domain: Domain; gaps: readonly Gap[] } | null>(null);
  const isState = field.kind === "boolean" || field.kind === "enum";
  const cursorText = useSignal("");
  const summary = useSignal("");
  const counts = useSignal({ points: 0, breaks: 0 });
  const isTable = useSignal(false);

  useEffect(() => {
    const element = box.current;
    if (!element) return;
    const words = (index: number | null | undefined): string => {
      const value = index === null || index === undefined ? null : line.current.values[index];
      if (value === null || value === undefined) return "";
      return `${clockTime(line.current.times[index ?? 0] ?? 0)}  ${valueWords(field, value)}`;
    };
    const made = new uPlot(
      optionsOf(element, isState, {
        range: () => [range.current.from_ms, range.current.to_ms],
        line: () => line.current,
        band: () => band.current,
        states: () => plotBuffer(field.id)?.states ?? [],
        moved: (index) => {
          cursorText.value = words(index);
        },
      }),
      [[], []],
      element,
    );
    plot.current = made;
    draw();
    const observer = new ResizeObserver(() => made.setSize({ width: element.clientWidth, height: element.clientHeight }));
    observer.observe(element);
    return () => {
      observer.disconnect();
      made.destroy();
      plot.current = null;
    };
  }, [theme.value, isState, field.id]);

  const draw = (): void => {
    const made = plot.current;
    const buffer = plotBuffer(field.id);
    if (!made || !buffer) return;
    const drawing = { made, buffer, version: buffer.version, domain: range.current, gaps: allLosses.value };
    const last = drawn.current;
    const isSame = last && (Object.keys(drawing) as (keyof typeof drawing)[]).every((key) => last[key] === drawing[key]);
    if (isSame) return;
    drawn.current = drawing;
    const start = firstFrom(buffer.times, range.current.from_ms);
    const times = buffer.times.slice(start);
    band.current = { times, low: buffer.low.slice(start), high: buffer.high.slice(start) };
    line.current = breakLine(times, buffer.values.slice(start), allLosses.value);
    made.setData([line.current.times, line.current.values as number[]], true);
    if (times.length !== counts.value.points || line.current.breaks !== counts.value.breaks) {
      counts.value = { points: times.length, breaks: line.current.breaks };
    }
  };

  useSignalEffect(() => {
    plotTick.value;
    draw();
  });
  useEffect(draw, [domain.from_ms, domain.to_ms]);

  const onKey = (event: KeyboardEvent): void => {
    const made = plot.current;
    if (!made) return;
    if (event.key === "ArrowLeft" || event.key === "ArrowRight") {
      event.preventDefault();
      moveCursor(made, line.current, event.key === "ArrowLeft" ? -1 : 1);
    } else if (event.key === "v") {
      event.preventDefault();
      isTable.value = !isTable.value;
    } else if (event.key === "Escape" && isTable.value) {
      event.stopPropagation();
      isTable.value = false;
    }
  };

  return (
    <div
      class="plot"
      role="group"
      tabIndex={0}
      aria-label={`${field.label}, plot. ${summary.value}`}
      data-field={field.id}
      data-points={counts.value.points}
      data-breaks={counts.value.breaks}
      onKeyDown={onKey}
      onFocus={() => {
        summary.value = summaryOf(field, line.current, band.current);
      }}
    >
      <div class="canvas" ref={box} aria-hidden="true" />
      {field.history === "loading" ? <span class="earlier late">Loading earlier</span> : null}
      {cursorText.value && !isTable.value ? <div class="cursor-value">{cursorText.value}</div> : null}
      <span class="visually-hidden" aria-live="polite">
        {isFocused(box.current) ? cursorText.value : ""}
      </span>
      {isTable.value ? <Table field={field} line={line.current} /> : null}
    </div>
  );
}

function Table({ field, line }: { field: FieldFrame; line: Line }) {
  const rows: { time: number; value: number }[] = [];
  for (let index = line.times.length - 1; index >= 0 && rows.length < TABLE_ROWS; index -= 1) {
    const value = line.values[index];
    if (value !== null && value !== undefined) rows.push({ time: line.times[index] ?? 0, value });
  }
  return (
    <div class="table" tabIndex={0} role="region" aria-label={`${field.label}, the last ${rows.length} values`}>
      <table>
        <tbody>
          {rows.map((row) => (
            <tr key={row.time}>
              <td>{clockTime(row.time)}</td>
              <td>{valueWords(field, row.value)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function isFocused(element: HTMLElement | null): boolean {
  return element !== null && element.parentElement === document.activeElement;
}

function valueWords(field: FieldFrame, value: number): string {
  if (field.kind === "boolean" || field.kind === "enum") return plotBuffer(field.id)?.states[value] ?? "";
  return field.unit ? `${measured(value)} ${field.unit}` : measured(value);
}

/** "20.9 to 22 °C, rising": what a person sees at a glance. */
export function summaryOf(field: FieldFrame, line: Line, band: Band): string {
  const values = line.values.filter((value): value is number => value !== null);
  const last = values.at(-1);
  if (last === undefined) return "No values in this window";
  const losses = line.breaks ? `, ${line.breaks} ${line.breaks === 1 ? "loss" : "losses"}` : "";
  if (field.kind === "boolean" || field.kind === "enum") return `now ${valueWords(field, last)}${losses}`;
  const low = Math.min(...values, ...band.low);
  const high = Math.max(...values, ...band.high);
  const before = values[Math.max(0, values.length - 1 - Math.ceil(values.length / 10))] ?? last;
  const change = last - before;
  const trend = Math.abs(change) < (high - low) / 20 ? "steady" : change > 0 ? "rising" : "falling";
  return `${measured(low)} to ${valueWords(field, high)}, ${trend}${losses}`;
}

/** Index of the first time that is not before `from_ms`; times rise. */
export function firstFrom(times: readonly number[], from_ms: number): number {
  let low = 0;
  let high = times.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((times[middle] ?? 0) < from_ms) low = middle + 1;
    else high = middle;
  }
  return low;
}

function moveCursor(plot: uPlot, line: Line, step: number): void {
  const last = line.times.length - 1;
  let index = plot.cursor.idx ?? (step < 0 ? last + 1 : -1);
  do index += step;
  while (index > 0 && index < last && line.values[index] === null);
  const time = line.times[Math.max(0, Math.min(last, index))];
  if (time !== undefined) plot.setCursor({ left: plot.valToPos(time, "x"), top: 10 });
}

function optionsOf(element: HTMLElement, isState: boolean, source: Source): uPlot.Options {
  const stroke = colour("series-1");
  const muted = colour("muted");
  const grid = colour("line");
  const none = { show: false };
  return {
    width: element.clientWidth,
    height: element.clientHeight,
    ms: 1,
    padding: [8, 10, 0, isState ? 10 : 4],
    legend: none,
    cursor: { y: false, drag: { x: false, y: false }, sync: { key: SYNC }, points: { size: 7, width: 0, fill: stroke } },
    scales: {
      x: { time: true, range: source.range },
      y: { range: (_plot, low, high) => (isState ? [0, 1] : padded(...widened(low, high, source.band()))) },
    },
    axes: [
      { stroke: muted, font: FONT, size: 22, gap: 4, space: 64, grid: none, ticks: none, values: timeLabels },
      isState
        ? { show: false }
        : { stroke: muted, font: FONT, size: (_plot, labels) => axisWidth(labels), gap: 6, space: 20, ticks: none, grid: { stroke: grid, width: 1 }, values: (_plot, splits) => splits.map(measured) },
    ],
    series: [
      {},
      isState
        ? { paths: () => null, points: none }
        : { stroke, width: 1.5, fill: faded(stroke, 0.1), spanGaps: false, points: { show: (plot) => isSparse(plot), size: 4, fill: stroke, width: 0 } },
    ],
    hooks: {
      drawAxes: [
        (plot) => drawGaps(plot, source.line()),
        (plot) => drawBand(plot, source.band(), stroke),
      ],
      draw: [(plot) => (isState ? drawStates(plot, source) : drawLine(plot, source.line(), stroke))],
      setCursor: [(plot) => source.moved(plot.cursor.left !== undefined && plot.cursor.left >= 0 ? plot.cursor.idx : null)],
    },
  };
}

/** The scale must hold what a reduced point stands for, not only its last value. */
function widened(low: number | null, high: number | null, band: Band): [number | null, number | null] {
  if (low === null || high === null || band.low.length === 0) return [low, high];
  return [band.low.reduce((least, value) => Math.min(least, value), low), band.high.reduce((most, value) => Math.max(most, value), high)];
}

/** Room above and below; a constant value gets a line in the middle. */
function padded(low: number | null, high: number | null): [number, number] {
  if (low === null || high === null || !Number.isFinite(low) || !Number.isFinite(high)) return [0, 1];
  const room = high > low ? (high - low) * 0.12 : Math.max(Math.abs(high) * 0.05, 0.5);
  return [low - room, high + room];
}

function axisWidth(labels: string[] | null): number {
  const longest = Math.max(2, ...(labels ?? []).map((label) => label.length));
  return 12 + longest * 6.5;
}

/** Seconds only where they differ; no label that the right edge would cut. */
function timeLabels(plot: uPlot, splits: number[]): string[] {
  const step = (splits[1] ?? 0) - (splits[0] ?? 0);
  const hasSeconds = step > 0 && step < 60_000;
  const room = hasSeconds ? 16 : 8;
  return splits.map((split) => {
    if (plot.valToPos(split, "x") > plot.bbox.width / devicePixelRatio - room) return "";
    return hasSeconds ? clockTime(split, false) : clockTime(split, false).slice(0, 5);
  });
}

/** Points are drawn when they are far apart: a line of two values would hide how few there are. */
function isSparse(plot: uPlot): boolean {
  return (plot.data[0]?.length ?? 0) < plot.bbox.width / devicePixelRatio / 14;
}
