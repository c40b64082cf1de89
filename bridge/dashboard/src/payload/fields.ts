/**
 * The fields of a payload: each scalar with its JSON Pointer (RFC 6901; empty for a bare value). Pure.
 * Depth and number are bounded; arrays of more than a few entries are not taken apart.
 */
import { FIELD_DEPTH_MAX, FIELDS_MAX } from "../app/limits";

export type Scalar = number | string | boolean | null;

const ARRAY_FIELDS_MAX = 8;

/** Calls `take` for each scalar in document order and returns how many there were, also beyond the limit. */
export function eachField(payload: unknown, take: (pointer: string, value: Scalar) => void): number {
  let seen = 0;
  const walk = (value: unknown, pointer: string, depth: number): void => {
    if (value === null || typeof value !== "object") {
      if (seen < FIELDS_MAX) take(pointer, value as Scalar);
      seen += 1;
      return;
    }
    if (depth === FIELD_DEPTH_MAX) return;
    if (Array.isArray(value)) {
      if (value.length > ARRAY_FIELDS_MAX) return;
      for (let index = 0; index < value.length; index += 1) walk(value[index], `${pointer}/${index}`, depth + 1);
      return;
    }
    for (const name in value) walk((value as Record<string, unknown>)[name], `${pointer}/${escaped(name)}`, depth + 1);
  };
  walk(payload, "", 0);
  return seen;
}

/** "/a~1b/c" → "a/b.c", for people. */
export function fieldName(pointer: string): string {
  return pointer
    .slice(1)
    .split("/")
    .map((part) => part.replaceAll("~1", "/").replaceAll("~0", "~"))
    .join(".");
}

function escaped(name: string): string {
  return name.includes("~") || name.includes("/") ? name.replaceAll("~", "~0").replaceAll("/", "~1") : name;
}
