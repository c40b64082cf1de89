/** One line about a payload, for tree and tail; rendered as text only. Pure. */
import { PAYLOAD_CHARS_MAX, PAYLOAD_HEAD_CHARS, SUMMARY_CHARS_MAX } from "../app/limits";
import { bytes, measured } from "../time/format";
import { eachField, fieldName, type Scalar } from "./fields";
import { unitOfName } from "./units";

const VALUE_FIELDS = 3;

/** A Kafka record without a payload says that its key is gone; it is not the JSON value null. */
export const TOMBSTONE_WORDS = "no payload (tombstone)";

/** The payload as text, as it came: JSON in one line, text as it is, binary as its size and first bytes. */
export function payloadText(payload: unknown, encoding: string): string {
  if (encoding === "null") return TOMBSTONE_WORDS;
  if (encoding === "base64") return binaryText(String(payload));
  return encoding === "json" ? JSON.stringify(payload) : String(payload);
}

/** Shortened to what is kept of it: a payload above 64 KiB as its first 4 KiB. */
export function kept(text: string): { text: string; isCut: boolean } {
  return text.length > PAYLOAD_CHARS_MAX ? { text: text.slice(0, PAYLOAD_HEAD_CHARS), isCut: true } : { text, isCut: false };
}

export function oneLine(text: string): string {
  const head = text.length > SUMMARY_CHARS_MAX ? `${text.slice(0, SUMMARY_CHARS_MAX)}…` : text;
  return head.replace(/[\r\n\t]+/g, " ");
}

/** "21.6 °C", "temp 21.6 °C · hum 48 %", "open": the latest value in the tree. */
export function valueText(payload: unknown, encoding: string, unit = ""): string {
  if (encoding === "null") return TOMBSTONE_WORDS;
  if (encoding === "base64") return binaryText(String(payload));
  if (encoding === "text") return oneLine(String(payload));
  if (payload === null || typeof payload !== "object") return withUnit(scalarText(payload as Scalar), unit);
  if (Array.isArray(payload) && payload.length > 8) return `${payload.length} values`;
  const parts: string[] = [];
  let only = "";
  const count = eachField(payload, (pointer, value) => {
    if (parts.length >= VALUE_FIELDS || pointer === "/unit") return;
    const name = unitOfName(fieldName(pointer));
    only = withUnit(scalarText(value), name.unit || (typeof value === "number" ? unit : ""));
    parts.push(`${name.label} ${only}`);
  });
  if (count === 0) return Array.isArray(payload) ? "[]" : "{}";
  const isBare = parts.length === 1 && (count === 1 || (unit !== "" && count === 2));
  return oneLine(isBare ? only : parts.join(" · "));
}

export function scalarText(value: Scalar): string {
  return typeof value === "number" ? measured(value) : String(value);
}

function withUnit(text: string, unit: string): string {
  return unit ? `${text} ${unit}` : text;
}

function binaryText(base64: string): string {
  const padding = base64.endsWith("==") ? 2 : base64.endsWith("=") ? 1 : 0;
  const size = Math.floor((base64.length * 3) / 4) - padding;
  const head = atob(base64.slice(0, 64));
  const hex = Array.from(head.slice(0, 24), (char) => char.charCodeAt(0).toString(16).padStart(2, "0")).join(" ");
  return `${bytes(size)} binary  ${hex}${size > 24 ? " …" : ""}`;
}

/** What a number did since the message before: "temp +0.2"; empty when nothing that is a number changed. */
export function changeText(previous: unknown, payload: unknown): string {
  if (previous === undefined) return "";
  const before = new Map<string, number>();
  eachField(previous, (pointer, value) => {
    if (typeof value === "number") before.set(pointer, value);
  });
  if (before.size === 0) return "";
  const parts: string[] = [];
  eachField(payload, (pointer, value) => {
    const old = before.get(pointer);
    if (typeof value !== "number" || old === undefined || old === value || parts.length > 1) return;
    const change = Number((value - old).toPrecision(3));
    if (change === 0) return;
    const name = pointer ? `${unitOfName(fieldName(pointer)).label} ` : "";
    parts.push(`${name}${change > 0 ? "+" : "−"}${measured(Math.abs(change))}`);
  });
  return parts.slice(0, 1).join("");
}
