/**
 * What a field is, judged by the last messages of its topic: number, counter, boolean, enum, time or text.
 * Pure: a FieldProfile takes values one by one, `kind` answers at any moment.
 */
import { CLASSIFY_MESSAGES, COUNTER_SAMPLES, ENUM_CHARS_MAX, ENUM_TEXTS_MAX } from "../app/limits";
import type { Scalar } from "./fields";
import { numberOfText } from "./units";

export type Kind = "number" | "counter" | "boolean" | "enum" | "time" | "text" | "empty";

/** Exactly two texts that mean yes and no; the first of each pair is the one drawn high. */
const PAIRS = [
  ["on", "off"],
  ["open", "closed"],
  ["online", "offline"],
  ["yes", "no"],
  ["true", "false"],
];

const TEN_YEARS_MS = 10 * 365.25 * 86_400_000;
const ISO_TIME = /^\d{4}-\d\d-\d\d[T ]\d\d:\d\d/;

export class FieldProfile {
  /** When the value last changed; 0 while it never did. */
  changedAt_ms = 0;
  last: Scalar = null;
  /** The unit that a text number carried. */
  unit = "";

  private seen = 0;
  private numbers = 0;
  private texts = new Set<string>();
  private hasLongText = false;
  private neverFell = true;
  private isWhole = true;
  private times = 0;
  private lastNumber = Number.NaN;
  private rises = 0;

  take(value: Scalar, now_ms: number): void {
    if (this.seen >= CLASSIFY_MESSAGES) this.forget();
    if (value !== this.last && this.seen > 0) this.changedAt_ms = now_ms;
    this.last = value;
    if (value === null) return;
    this.seen += 1;
    const number = this.numberIn(value);
    if (number !== null) {
      this.numbers += 1;
      if (number < this.lastNumber) this.neverFell = false;
      if (number > this.lastNumber) this.rises += 1;
      if (!Number.isInteger(number)) this.isWhole = false;
      if (isEpoch(number, now_ms)) this.times += 1;
      this.lastNumber = number;
    } else {
      const text = String(value);
      if (typeof value === "string" && ISO_TIME.test(text) && !Number.isNaN(Date.parse(text))) this.times += 1;
      if (text.length > ENUM_CHARS_MAX) this.hasLongText = true;
      else if (this.texts.size <= ENUM_TEXTS_MAX) this.texts.add(text);
    }
  }

  get kind(): Kind {
    if (this.seen === 0) return "empty";
    if (this.times === this.seen) return "time";
    if (this.numbers === this.seen) {
      const counts = this.isWhole && this.neverFell && this.seen >= COUNTER_SAMPLES && this.rises >= COUNTER_SAMPLES / 2;
      return counts ? "counter" : "number";
    }
    if (this.numbers > 0 || this.hasLongText) return "text";
    if (this.texts.size <= 2 && [...this.texts].every((text) => isYesOrNo(text))) return "boolean";
    // One text seen once may be anything; a text that came again is a state.
    return this.texts.size <= ENUM_TEXTS_MAX && this.seen > this.texts.size ? "enum" : "text";
  }

  get isConstant(): boolean {
    return this.changedAt_ms === 0;
  }

  private numberIn(value: Scalar): number | null {
    if (typeof value === "number") return Number.isFinite(value) ? value : null;
    if (typeof value !== "string") return null;
    const number = numberOfText(value);
    if (number === null) return null;
    if (number.unit) this.unit = number.unit;
    return number.value;
  }

  private forget(): void {
    this.seen = 0;
    this.numbers = 0;
    this.texts.clear();
    this.hasLongText = false;
    this.times = 0;
    this.neverFell = true;
    this.isWhole = true;
    this.rises = 0;
  }
}

/** The point of a plot for this value: a number, or NaN where there is nothing to plot (beyond 2⁵³ values are not exact). */
export function plotted(value: Scalar | undefined): number {
  const number = typeof value === "string" ? (numberOfText(value)?.value ?? Number.NaN) : value;
  return typeof number === "number" && Math.abs(number) <= Number.MAX_SAFE_INTEGER ? number : Number.NaN;
}

export function isYesOrNo(text: string): boolean {
  const lower = text.toLowerCase();
  return PAIRS.some((pair) => pair.includes(lower));
}

export function isYes(text: string): boolean {
  const lower = text.toLowerCase();
  return PAIRS.some(([yes]) => yes === lower);
}

function isEpoch(value: number, now_ms: number): boolean {
  return Math.abs(value - now_ms) < TEN_YEARS_MS || Math.abs(value * 1000 - now_ms) < TEN_YEARS_MS;
}
