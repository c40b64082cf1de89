/** What is drawn on the canvas of a plot beside uPlot's line: losses, bands of lowest and highest values, silence, states. */
import type uPlot from "uplot";
import { colour } from "../app/theme";
import { isYes } from "../payload/classify";
import type { Line } from "../time/gaps";

/** Lowest and highest values of the first points, each of which stands for several messages. */
export interface Band {
  times: number[];
  low: number[];
  high: number[];
}

export interface Source {
  range: () => [number, number];
  line: () => Line;
  band: () => Band;
  states: () => string[];
  moved: (index: number | null | undefined) => void;
}

export function drawGaps(plot: uPlot, line: Line): void {
  if (line.breaks === 0) return;
  const { ctx, bbox } = plot;
  const silent = new Set(line.silences.map(([from]) => from + 1));
  ctx.save();
  ctx.fillStyle = faded(colour("gap"), 0.22);
  for (let index = 1; index < line.values.length - 1; index += 1) {
    if (line.values[index] !== null || silent.has(index)) continue;
    const left = plot.valToPos(line.times[index - 1] ?? 0, "x", true);
    const right = plot.valToPos(line.times[index + 1] ?? 0, "x", true);
    // Seconds on a wide window are less than a pixel: a loss stays visible.
    const width = Math.max(right - left, 3 * devicePixelRatio);
    ctx.fillRect(left - (width - (right - left)) / 2, bbox.top, width, bbox.height);
  }
  ctx.restore();
}

/** From the lowest to the highest value that each point stands for. */
export function drawBand(plot: uPlot, band: Band, stroke: string): void {
  const { ctx, bbox } = plot;
  const count = band.low.length;
  if (count === 0) return;
  const left = plot.valToPos(band.times[0] ?? 0, "x", true);
  const right = plot.valToPos(band.times[count - 1] ?? 0, "x", true);
  ctx.save();
  ctx.beginPath();
  ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
  ctx.clip();
  ctx.strokeStyle = faded(stroke, 0.45);
  ctx.lineWidth = Math.max(devicePixelRatio, Math.min(4 * devicePixelRatio, (right - left) / count));
  ctx.beginPath();
  for (let index = 0; index < count; index += 1) {
    const [low, high] = [band.low[index] ?? 0, band.high[index] ?? 0];
    if (low === high) continue;
    const x = plot.valToPos(band.times[index] ?? 0, "x", true);
    ctx.moveTo(x, plot.valToPos(low, "y", true));
    ctx.lineTo(x, plot.valToPos(high, "y", true));
  }
  ctx.stroke();
  ctx.restore();
}

export function drawLine(plot: uPlot, line: Line, stroke: string): void {
  const { ctx } = plot;
  const at = (index: number): [number, number] => [plot.valToPos(line.times[index] ?? 0, "x", true), plot.valToPos(line.values[index] ?? 0, "y", true)];
  ctx.save();
  ctx.strokeStyle = stroke;
  ctx.lineWidth = devicePixelRatio;
  ctx.setLineDash([1.5 * devicePixelRatio, 4 * devicePixelRatio]);
  for (const [from, to] of line.silences) {
    ctx.beginPath();
    ctx.moveTo(...at(from));
    ctx.lineTo(...at(to));
    ctx.stroke();
  }
  const last = line.values.length - 1;
  if (last >= 0 && line.values[last] !== null) {
    ctx.fillStyle = stroke;
    ctx.beginPath();
    ctx.arc(...at(last), 2.5 * devicePixelRatio, 0, 2 * Math.PI);
    ctx.fill();
  }
  ctx.restore();
}

export function drawStates(plot: uPlot, source: Source): void {
  const { ctx, bbox } = plot;
  const line = source.line();
  const states = source.states();
  const top = bbox.top + bbox.height * 0.28;
  const height = bbox.height * 0.44;
  const end = plot.valToPos(source.range()[1], "x", true);
  ctx.save();
  ctx.font = `${11 * devicePixelRatio}px system-ui, sans-serif`;
  ctx.textBaseline = "middle";
  ctx.textAlign = "left";
  let index = 0;
  while (index < line.values.length) {
    const value = line.values[index];
    let next = index + 1;
    while (next < line.values.length && line.values[next] === value) next += 1;
    if (value !== null && value !== undefined) {
      const left = plot.valToPos(line.times[index] ?? 0, "x", true);
      const right = next < line.values.length ? plot.valToPos(line.times[next] ?? 0, "x", true) : end;
      const text = states[value] ?? "";
      ctx.fillStyle = stateColour(text, value);
      ctx.fillRect(left, top, Math.max(right - left - devicePixelRatio, devicePixelRatio), height);
      if (ctx.measureText(text).width + 12 * devicePixelRatio < right - left) {
        ctx.fillStyle = colour("text");
        ctx.fillText(text, left + 6 * devicePixelRatio, top + height / 2);
      }
    }
    index = next;
  }
  ctx.restore();
}

function stateColour(text: string, index: number): string {
  const lower = text.toLowerCase();
  if (isYes(lower)) return faded(colour("series-1"), 0.6);
  if (/^(?:false|off|closed|offline|no|idle|ok|normal|0)$/.test(lower)) return faded(colour("muted"), 0.22);
  return faded(colour(`series-${(index % 6) + 1}`), 0.45);
}

/** A colour token (#RRGGBB) with an opacity. */
export function faded(hex: string, opacity: number): string {
  const value = Number.parseInt(hex.slice(1), 16);
  return `rgb(${(value >> 16) & 255} ${(value >> 8) & 255} ${value & 255} / ${opacity})`;
}
