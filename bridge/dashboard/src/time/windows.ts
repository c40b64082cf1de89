/** The windows of time that the time bar and the plots can show. Pure. */

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

/** From the narrowest to everything that is kept; zooming goes from one to the next. */
export const WINDOWS = [
  { name: "5m", ms: 5 * MINUTE, words: "5 min" },
  { name: "15m", ms: 15 * MINUTE, words: "15 min" },
  { name: "1h", ms: HOUR, words: "1 h" },
  { name: "3h", ms: 3 * HOUR, words: "3 h" },
  { name: "6h", ms: 6 * HOUR, words: "6 h" },
  { name: "12h", ms: 12 * HOUR, words: "12 h" },
  { name: "24h", ms: DAY, words: "24 h" },
  { name: "3d", ms: 3 * DAY, words: "3 d" },
  { name: "7d", ms: 7 * DAY, words: "7 d" },
  { name: "30d", ms: 30 * DAY, words: "30 d" },
  { name: "all", ms: Infinity, words: "all kept" },
] as const;

export function windowOf(name: string | null): number | null {
  return WINDOWS.find((entry) => entry.name === name)?.ms ?? null;
}

export function windowWords(ms: number): string {
  return WINDOWS.find((entry) => entry.ms === ms)?.words ?? "";
}

/** The next narrower (-1) or wider (1) window; the last one stays. */
export function nextWindow(ms: number, step: -1 | 1): number {
  const index = WINDOWS.findIndex((entry) => entry.ms >= ms);
  const next = Math.max(0, Math.min(WINDOWS.length - 1, index + step));
  return WINDOWS[next]?.ms ?? ms;
}
