/** Round times for the labels of the time bar, as many as fit. Pure; days begin at midnight of the browser's zone. */
import { endOf, type Range } from "./range";

const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
const STEPS = [
  ...[10, 15, 30].map((count) => count * SECOND),
  ...[1, 2, 5, 10, 15, 30].map((count) => count * MINUTE),
  ...[1, 2, 3, 6, 12].map((count) => count * HOUR),
  ...[1, 2, 7, 14, 28, 91, 364].map((count) => count * DAY),
];
const LABEL_PX = 84;
const TICKS_MAX = 40;

export interface Tick {
  time_ms: number;
  /** Midnight: the day says more than 00:00. */
  isDay: boolean;
  hasSeconds: boolean;
}

export function ticksOf(range: Range, width_px: number): Tick[] {
  const { from_ms } = range;
  const to_ms = endOf(range);
  const wanted = Math.max(1, Math.floor(width_px / LABEL_PX));
  const step = STEPS.find((length) => (to_ms - from_ms) / length <= wanted) ?? STEPS.at(-1) ?? DAY;
  const ticks: Tick[] = [];
  // A label at an edge would be cut.
  const edge = ((to_ms - from_ms) / Math.max(1, width_px)) * (LABEL_PX / 2);
  const zone_ms = new Date(from_ms).getTimezoneOffset() * MINUTE;
  let time_ms = Math.ceil((from_ms - zone_ms) / step) * step + zone_ms;
  for (; time_ms < to_ms && ticks.length < TICKS_MAX; time_ms += step) {
    // Over a change of the clocks midnight is another multiple.
    const shift_ms = (new Date(time_ms).getTimezoneOffset() * MINUTE - zone_ms) * Number(step >= HOUR);
    const tick_ms = time_ms + shift_ms;
    if (tick_ms < from_ms + edge || tick_ms > to_ms - edge) continue;
    const date = new Date(tick_ms);
    ticks.push({ time_ms: tick_ms, isDay: date.getHours() === 0 && date.getMinutes() === 0 && date.getSeconds() === 0, hasSeconds: step < MINUTE });
  }
  return ticks;
}
