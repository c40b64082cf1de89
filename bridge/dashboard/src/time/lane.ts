/**
 * The lane of one device's connection: stretches of one state, ticks where a connection took over from another, and places
 * where changes are missing. What is not known is a stretch of its own, never drawn as offline. Pure.
 */
import type { PresenceChange } from "../api/types";
import type { DeviceState } from "../views/device-words";

export interface Stretch {
  from_ms: number;
  to_ms: number;
  state: DeviceState | "unknown";
}

export interface Lane {
  stretches: Stretch[];
  /** Moments of take-overs: a tick, not a break. */
  takeOvers: number[];
  /** Changes that the log does not have, each before the change at `at_ms`. */
  missing: Missing[];
}

export interface Missing {
  at_ms: number;
  seq: number;
  count: number;
}

/** `changes` in order, oldest first; the lane reaches from `from_ms` to `to_ms`. */
export function laneOf(changes: readonly PresenceChange[], from_ms: number, to_ms: number): Lane {
  const stretches: Stretch[] = [];
  const takeOvers: number[] = [];
  let state: Stretch["state"] = "unknown";
  let begun_ms = -Infinity;
  const put = (until_ms: number): void => {
    const [start, end] = [Math.max(begun_ms, from_ms), Math.min(until_ms, to_ms)];
    if (end <= start) return;
    const last = stretches[stretches.length - 1];
    if (last && last.state === state && last.to_ms === start) last.to_ms = end;
    else stretches.push({ from_ms: start, to_ms: end, state });
  };
  for (const change of changes) {
    const at_ms = Date.parse(change.time);
    put(at_ms);
    begun_ms = at_ms;
    state = change.online ? "online" : change.session ? "session" : "gone";
    if (change.reason === "taken_over" && at_ms >= from_ms && at_ms <= to_ms) takeOvers.push(at_ms);
  }
  put(Infinity);
  return { stretches, takeOvers, missing: missingOf(changes) };
}

/** Numbers that were left out between two changes. A client that was forgotten begins with 1 again: nothing is missing. */
export function missingOf(changes: readonly PresenceChange[]): Missing[] {
  const missing: Missing[] = [];
  for (const [index, change] of changes.entries()) {
    const before = changes[index - 1];
    if (before && change.seq > before.seq + 1) missing.push({ at_ms: Date.parse(change.time), seq: change.seq, count: change.seq - before.seq - 1 });
  }
  return missing;
}

export function missingWords(count: number): string {
  return count === 1 ? "1 change is missing" : `${count.toLocaleString("en-US")} changes are missing`;
}
