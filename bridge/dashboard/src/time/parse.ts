/** Moments as people type them and as addresses hold them. Pure; the browser's zone is used where none is written. */

const MS_BY_UNIT: Record<string, number> = { ms: 1, s: 1000, m: 60_000, min: 60_000, h: 3_600_000, d: 86_400_000, w: 7 * 86_400_000 };
const MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const CLOCK = String.raw`(\d{1,2}):(\d\d)(?::(\d\d)(?:\.(\d{1,3}))?)?`;
const DAY_MS = 86_400_000;

/**
 * "03:12", "03:12:07.250", "yesterday 03:12", "22 Nov 03:12", "2026-11-22 03:12", RFC 3339, epoch milliseconds, "-15m",
 * "18 h ago", "now". A clock time or day without a year is the latest one that has passed. Null for anything else.
 */
export function parseMoment(text: string, now_ms: number): number | null {
  const typed = text.trim().toLowerCase().replace(/\s+/g, " ");
  if (typed === "now") return now_ms;
  const relative = /^-(\d{1,9}) ?(ms|s|min|m|h|d|w)$/.exec(typed) ?? /^(\d{1,9}) ?(s|min|m|h|d|w) ago$/.exec(typed);
  if (relative) return now_ms - Number(relative[1]) * (MS_BY_UNIT[relative[2] ?? ""] ?? 0);
  if (/^\d{12,15}$/.test(typed)) return Number(typed);
  if (/^\d{4}-\d\d-\d\d[t ]\d{1,2}:\d\d/.test(typed)) return orNull(Date.parse(typed.toUpperCase().replace(" ", "T")));
  return clockOfDay(typed, now_ms) ?? dayOfYear(typed, now_ms);
}

/** A moment that stays what it is when it is read again later; "-15m" in an address does not. */
export function isRelative(text: string): boolean {
  return text === "now" || text.startsWith("-");
}

function clockOfDay(typed: string, now_ms: number): number | null {
  const match = new RegExp(`^(yesterday |today )?${CLOCK}$`).exec(typed);
  if (!match) return null;
  const date = new Date(now_ms);
  const time_ms = atClock(date.getFullYear(), date.getMonth(), date.getDate(), match.slice(2));
  if (time_ms === null || match[1] === "today ") return time_ms;
  const isEarlierDay = match[1] === "yesterday " || time_ms > now_ms;
  return isEarlierDay ? atClock(date.getFullYear(), date.getMonth(), date.getDate() - 1, match.slice(2)) : time_ms;
}

function dayOfYear(typed: string, now_ms: number): number | null {
  const match = new RegExp(`^(?:[a-z]{2,9},? )?(\\d{1,2})\\.? ([a-z]{3})[a-z]*\\.?(?: (\\d{4}))?,? ${CLOCK}$`).exec(typed);
  if (!match) return null;
  const day = Number(match[1]);
  const month = MONTHS.indexOf(match[2] ?? "");
  if (month < 0 || day < 1 || day > 31) return null;
  if (match[3]) return atClock(Number(match[3]), month, day, match.slice(4));
  const year = new Date(now_ms).getFullYear();
  const time_ms = atClock(year, month, day, match.slice(4));
  // Tomorrow's date is a typing error more often than last year: only what is clearly ahead is a year ago.
  return time_ms !== null && time_ms > now_ms + DAY_MS ? atClock(year - 1, month, day, match.slice(4)) : time_ms;
}

function atClock(year: number, month: number, day: number, clock: (string | undefined)[]): number | null {
  const [hour, minute, second, fraction] = clock;
  if (Number(hour) > 23 || Number(minute) > 59 || Number(second ?? 0) > 59) return null;
  const milliseconds = Number((fraction ?? "").padEnd(3, "0"));
  return orNull(new Date(year, month, day, Number(hour), Number(minute), Number(second ?? 0), milliseconds).getTime());
}

function orNull(time_ms: number): number | null {
  return Number.isNaN(time_ms) ? null : time_ms;
}
