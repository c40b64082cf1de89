/** Streams in words: how full, how far behind, what is wrong. What a server does not say is a dash, not a zero. Pure. */
import type { StreamInfo, StreamKafka, SystemInfo } from "../api/types";
import { age, binaryBytes, clockTime, dayTime, dayWords, duration, grouped, rate, span } from "../time/format";

export const UNKNOWN = "–";

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"] as const;

/** "7.1 of 10 GiB", "38 of 1,024 MiB", "300 B of 64 MiB": in the limit's unit, unless the size would vanish in it. */
export function ofLimit(size: number, limit: number | null | undefined): string {
  if (!limit) return binaryBytes(size);
  const unitOf = (value: number): number => Math.max(0, Math.min(UNITS.length - 1, Math.floor(Math.log2(Math.max(1, value)) / 10)));
  let unit = unitOf(limit);
  if (size > 0 && size / 1024 ** unit < 0.1) {
    if (unitOf(size) < unit - 1) return `${binaryBytes(size)} of ${binaryBytes(limit)}`;
    unit = unitOf(size);
  }
  const shown = (value: number): string => {
    const scaled = value / 1024 ** unit;
    return grouped(scaled >= 100 ? Math.round(scaled) : Number(scaled.toFixed(1)));
  };
  return `${shown(size)} of ${shown(limit)} ${UNITS[unit]}`;
}

export function rateWords(stream: StreamInfo): string {
  return typeof stream.rate === "number" ? rate(stream.rate) : UNKNOWN;
}

export function storedWords(stream: StreamInfo): string {
  return typeof stream.bytes === "number" ? ofLimit(stream.bytes, stream.retention?.bytes) : UNKNOWN;
}

/** Part of the limit, 0 to 1; null without a limit. */
export function storedShare(stream: StreamInfo): number | null {
  const limit = stream.retention?.bytes;
  return limit && typeof stream.bytes === "number" ? Math.min(1, stream.bytes / limit) : null;
}

export function keptWords(stream: StreamInfo): string {
  if (!stream.retention) return UNKNOWN;
  if (stream.retention.age_s) return span(stream.retention.age_s);
  if (stream.retention.bytes) return "by size";
  return stream.storage === "kafka" ? "as Kafka does" : "no limit";
}

/** "Sun 15 Nov 03:12": what has happened long ago needs no seconds. */
export function oldestWords(stream: StreamInfo, now_ms: number): string {
  const time_ms = Date.parse(stream.oldest ?? "");
  if (Number.isNaN(time_ms)) return stream.records === 0 ? "nothing yet" : UNKNOWN;
  const clock = clockTime(time_ms, false).slice(0, 5);
  return new Date(time_ms).toDateString() === new Date(now_ms).toDateString() ? clock : `${dayWords(time_ms, now_ms)} ${clock}`;
}

const NOW_MS = 2_000;

export function newestWords(stream: StreamInfo, now_ms: number): string {
  const time_ms = Date.parse(stream.newest ?? "");
  if (Number.isNaN(time_ms)) return UNKNOWN;
  return now_ms - time_ms < NOW_MS ? "now" : `${age(now_ms - time_ms)} ago`;
}

export function milliseconds(value: number | null | undefined): string {
  if (typeof value !== "number") return UNKNOWN;
  return value < 100 ? `${Number(value.toPrecision(2))} ms` : `${grouped(Math.round(value))} ms`;
}

export const STATE_WORDS: Record<StreamKafka["state"], string> = {
  up: "connected",
  down: "unreachable",
  starting: "not reached yet",
  gone: "topic is gone",
};

/** "12 partitions · unreachable · spool 41,204". */
export function kafkaWords(stream: StreamInfo): string {
  const { kafka, spool } = stream;
  if (!kafka) return UNKNOWN;
  const count = kafka.partitions ?? stream.partitions?.length;
  const parts = [count === undefined || count === null ? "" : count === 1 ? "1 partition" : `${grouped(count)} partitions`, STATE_WORDS[kafka.state] ?? kafka.state];
  if (spool && spool.records > 0) parts.push(`spool ${grouped(spool.records)}`);
  if (kafka.mismatch?.length) parts.push("not as configured");
  return parts.filter(Boolean).join(" · ");
}

export interface Warning {
  key: string;
  tone: "warn" | "bad" | "info";
  text: string;
}

/** What a person should know, the worst first; empty when all is well. */
export function warningsOf(streams: readonly StreamInfo[], system: SystemInfo | null, now_ms: number): Warning[] {
  const warnings: Warning[] = [];
  for (const stream of streams) {
    if (stream.failure) warnings.push({ key: `failure ${stream.name}`, tone: "bad", text: `${stream.name}: ${stream.failure}` });
    if (stream.kafka?.state === "gone") {
      const text = `${stream.name}: the Kafka topic ${stream.kafka.topic ?? ""} is gone${since(stream.kafka.since, now_ms)}.${spoolSentence([stream], null)}`;
      warnings.push({ key: `gone ${stream.name}`, tone: "bad", text });
    }
  }
  warnings.push(...outage(streams, system, now_ms));
  for (const stream of streams) {
    const { dead_letters, spool, kafka } = stream;
    if (spool?.state === "draining" && kafka?.state === "up" && spool.records > 0) {
      const speed = spool.rate ? ` at ${rate(spool.rate)}` : "";
      warnings.push({ key: `drain ${stream.name}`, tone: "info", text: `${stream.name}: Kafka is back. ${messages(spool.records)} ${verb(spool.records, "moves", "move")} from the spool to it${speed}.` });
    }
    for (const text of kafka?.mismatch ?? []) warnings.push({ key: `mismatch ${stream.name} ${text}`, tone: "warn", text: `${stream.name}: ${text}` });
    if (dead_letters && dead_letters.records > 0) {
      const newest = dead_letters.newest ? `, the newest at ${dayTime(Date.parse(dead_letters.newest), now_ms)}` : "";
      const text = `${stream.name}: Kafka will never take ${messages(dead_letters.records)}${newest}. They are kept as dead letters; headrace streams dead-letters lists them with the reasons.`;
      warnings.push({ key: `dead ${stream.name}`, tone: "warn", text });
    }
  }
  return warnings;
}

/** One line for the outage, however many streams wait for its end. */
function outage(streams: readonly StreamInfo[], system: SystemInfo | null, now_ms: number): Warning[] {
  const waiting = streams.filter((stream) => stream.kafka?.state === "down" || stream.kafka?.state === "starting");
  if (waiting.length === 0) return [];
  const isDown = waiting.some((stream) => stream.kafka?.state === "down");
  const from = system?.kafka?.since ?? waiting[0]?.kafka?.since;
  const what = isDown ? `Kafka is unreachable${since(from, now_ms)}.` : `Kafka was not reached yet${since(from, now_ms)}.`;
  const reason = system?.kafka?.error ?? waiting.find((stream) => stream.kafka?.error)?.kafka?.error;
  const error = reason ? ` Last error: ${reason}.` : "";
  return [{ key: "outage", tone: "warn", text: `${what}${spoolSentence(waiting, system)}${error}` }];
}

function spoolSentence(streams: readonly StreamInfo[], system: SystemInfo | null): string {
  const spools = streams.flatMap((stream) => stream.spool ?? []);
  if (spools.length === 0) return "";
  const records = spools.reduce((sum, spool) => sum + spool.records, 0);
  if (records === 0) return " Nothing waits for it.";
  const bytes = system?.spool?.bytes ?? spools.reduce((sum, spool) => sum + spool.bytes, 0);
  const limits = [system?.spool?.bytes_max, ...spools.map((spool) => spool.bytes_max)].filter((limit) => typeof limit === "number");
  const full_s = Math.min(...spools.map((spool) => spool.full_in_s ?? Infinity));
  const full = Number.isFinite(full_s) ? `, full in ${duration(full_s * 1000)} at this rate` : "";
  return ` ${messages(records)} ${verb(records, "waits", "wait")} in the spool (${ofLimit(bytes, limits[0])}${full}).`;
}

function since(text: string | null | undefined, now_ms: number): string {
  const time_ms = Date.parse(text ?? "");
  return Number.isNaN(time_ms) ? "" : ` since ${dayTime(time_ms, now_ms)}`;
}

function messages(count: number): string {
  return count === 1 ? "1 message" : `${grouped(count)} messages`;
}

function verb(count: number, one: string, many: string): string {
  return count === 1 ? one : many;
}
