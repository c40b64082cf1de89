/** Times, ages, rates and sizes as people read them. Pure; the time zone's offset is an argument where it matters. */

const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

const pad = (value: number, width = 2): string => String(value).padStart(width, "0");

/** "03:12:07.250" in the browser's zone. */
export function clockTime(time_ms: number, withMilliseconds = true): string {
  const date = new Date(time_ms);
  const seconds = `${pad(date.getHours())}:${pad(date.getMinutes())}:${pad(date.getSeconds())}`;
  return withMilliseconds ? `${seconds}.${pad(date.getMilliseconds(), 3)}` : seconds;
}

/** "Sun 22 Nov 03:12:07": for times that are not of today. */
export function dayTime(time_ms: number, now_ms: number): string {
  const isToday = new Date(time_ms).toDateString() === new Date(now_ms).toDateString();
  if (isToday) return clockTime(time_ms, false);
  return `${dayWords(time_ms, now_ms)} ${clockTime(time_ms, false)}`;
}

/** "Sun 22 Nov 03:12:07.250": a moment of any day, without a doubt. */
export function momentWords(time_ms: number, withMilliseconds = true): string {
  return `${dayWords(time_ms)} ${clockTime(time_ms, withMilliseconds)}`;
}

/** "Sun 22 Nov", with the year where it is another one than in `now_ms`. */
export function dayWords(time_ms: number, now_ms = time_ms): string {
  const isOtherYear = new Date(time_ms).getFullYear() !== new Date(now_ms).getFullYear();
  return new Date(time_ms)
    .toLocaleDateString("en-GB", { weekday: "short", day: "numeric", month: "short", ...(isOtherYear ? { year: "numeric" } : {}) })
    .replace(",", "");
}

/** "0 s", "40 s", "3 min", "2 h", "5 d": how long ago, in whole steps. */
export function age(elapsed_ms: number): string {
  const elapsed = Math.max(0, elapsed_ms);
  if (elapsed < MINUTE) return `${Math.floor(elapsed / SECOND)} s`;
  if (elapsed < HOUR) return `${Math.floor(elapsed / MINUTE)} min`;
  if (elapsed < DAY) return `${Math.floor(elapsed / HOUR)} h`;
  return `${Math.floor(elapsed / DAY)} d`;
}

/** "48 s", "2 min 5 s", "3 h 20 min": a length of time with two steps. */
export function duration(elapsed_ms: number): string {
  const elapsed = Math.max(0, elapsed_ms);
  if (elapsed < MINUTE) return `${Math.round(elapsed / SECOND)} s`;
  if (elapsed < HOUR) return `${Math.floor(elapsed / MINUTE)} min ${Math.round((elapsed % MINUTE) / SECOND)} s`;
  if (elapsed < DAY) return `${Math.floor(elapsed / HOUR)} h ${Math.round((elapsed % HOUR) / MINUTE)} min`;
  return `${Math.floor(elapsed / DAY)} d ${Math.round((elapsed % DAY) / HOUR)} h`;
}

/** "+1.00 s", "+3 min": the distance of two messages. */
export function distance(elapsed_ms: number): string {
  if (elapsed_ms < 10 * SECOND) return `+${(elapsed_ms / SECOND).toFixed(2)} s`;
  if (elapsed_ms < MINUTE) return `+${(elapsed_ms / SECOND).toFixed(1)} s`;
  return `+${age(elapsed_ms)}`;
}

/** "9.6 k/s", "212 /s", "4 /s", "1 /min", "2 /h"; a dash for what nobody knows. */
export function rate(perSecond: number): string {
  if (Number.isNaN(perSecond)) return "–";
  if (!(perSecond > 0)) return "0 /s";
  if (perSecond >= 999_500) return `${trim(perSecond / 1e6)} M/s`;
  if (perSecond >= 9_995) return `${trim(perSecond / 1000)} k/s`;
  if (perSecond >= 9.5) return `${grouped(Math.round(perSecond))} /s`;
  if (perSecond >= 0.95) return `${trim(perSecond)} /s`;
  if (perSecond * 60 >= 0.95) return `${Math.round(perSecond * 60)} /min`;
  if (perSecond * 3600 >= 0.5) return `${Math.round(perSecond * 3600)} /h`;
  return "0 /s";
}

function trim(value: number): string {
  return value >= 99.5 ? String(Math.round(value)) : value.toFixed(1).replace(/\.0$/, "");
}

/** 20412 → "20,412". */
export function grouped(value: number): string {
  return value.toLocaleString("en-US");
}

/** "43 B", "2.1 KB", "16 MB". */
export function bytes(size: number): string {
  if (size < 1000) return `${size} B`;
  if (size < 1_000_000) return `${trim(size / 1000)} KB`;
  if (size < 1e9) return `${trim(size / 1e6)} MB`;
  return `${trim(size / 1e9)} GB`;
}

/** "7.1 GiB", "38 MiB": what is compared with a limit that was written so. */
export function binaryBytes(size: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let value = size;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit === 0 ? value : grouped(value >= 100 ? Math.round(value) : Number(value.toFixed(1)))} ${units[unit]}`;
}

/** "7 d", "24 h", "1 d 12 h": an age that was written in a configuration. */
export function span(seconds: number): string {
  const [size, name] = ([[86_400, "d"], [3600, "h"], [60, "min"], [1, "s"]] as const).find(([length]) => seconds % length === 0) ?? [1, "s"];
  return size === 86_400 && seconds === 86_400 ? "24 h" : `${grouped(seconds / size)} ${name}`;
}

/** "UTC+1", "UTC−3:30", "UTC": from `Date.getTimezoneOffset()`. */
export function zoneName(offset_minutes: number): string {
  if (offset_minutes === 0) return "UTC";
  const minutes = Math.abs(offset_minutes);
  const rest = minutes % 60 ? `:${pad(minutes % 60)}` : "";
  return `UTC${offset_minutes < 0 ? "+" : "−"}${Math.floor(minutes / 60)}${rest}`;
}

/** A measured number without noise: at most 4 significant digits behind the point, "≈" beyond 2⁵³. */
export function measured(value: number): string {
  if (!Number.isFinite(value)) return String(value);
  if (Math.abs(value) > Number.MAX_SAFE_INTEGER) return `≈ ${value.toPrecision(6)}`;
  if (Number.isInteger(value)) return Math.abs(value) >= 10_000 ? grouped(value) : String(value);
  const magnitude = Math.abs(value);
  if (magnitude >= 10_000) return grouped(Math.round(value * 10) / 10);
  if (magnitude >= 100) return String(Math.round(value * 10) / 10);
  if (magnitude >= 0.01) return String(Number(value.toPrecision(4)));
  return value.toPrecision(3);
}

/** "3rd". */
export function ordinal(value: number): string {
  const tens = value % 100;
  const ending = tens >= 11 && tens <= 13 ? "th" : (["th", "st", "nd", "rd"][value % 10] ?? "th");
  return `${value}${ending}`;
}
