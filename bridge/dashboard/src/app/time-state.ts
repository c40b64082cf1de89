/**
 * Which moment the page shows, as a pure machine: live, paused, at a moment, or replaying from one.
 * All but the pause stand in the address, so that a reload or a link shows the same.
 */
import { parseMoment } from "../time/parse";
import type { Speed } from "../time/replay-clock";

export type TimeState =
  | { mode: "live" }
  | { mode: "paused"; at_ms: number } // the screen is still, the connection goes on
  | { mode: "past"; at_ms: number }
  | { mode: "replaying"; from_ms: number; speed: Speed };

export type TimeInput =
  | { kind: "live" }
  | { kind: "toggle" } // Space and the button: pause, go on, play, stop
  | { kind: "goTo"; at_ms: number }
  | { kind: "play" } // at the chosen speed
  | { kind: "filter" } // the filter changed
  | { kind: "caughtUp" };

/** Keys 1 to 5. */
export const SPEEDS: readonly Speed[] = [0.1, 1, 10, 60, "max"];

export interface TimeNow {
  /** The server's clock. */
  now_ms: number;
  /** The moment on the screen. */
  shown_ms: number;
  speed: Speed;
}

export const LIVE: TimeState = { mode: "live" };

export function nextTime(state: TimeState, input: TimeInput, { now_ms, shown_ms, speed }: TimeNow): TimeState {
  switch (input.kind) {
    case "live":
      return LIVE;
    case "goTo":
      // There is nothing to see of the future; who asks for it wants now.
      return input.at_ms >= now_ms ? LIVE : { mode: "past", at_ms: Math.max(0, Math.round(input.at_ms)) };
    case "toggle":
      if (state.mode === "live") return { mode: "paused", at_ms: Math.round(now_ms) };
      if (state.mode === "paused") return LIVE;
      if (state.mode === "past") return { mode: "replaying", from_ms: state.at_ms, speed };
      return { mode: "past", at_ms: Math.round(shown_ms) };
    case "play":
      if (state.mode === "past") return { mode: "replaying", from_ms: state.at_ms, speed };
      if (state.mode === "replaying") return { mode: "replaying", from_ms: Math.round(shown_ms), speed };
      return state;
    case "filter":
      // What was held back was held back for the old filter: the log has that moment for the new one.
      return state.mode === "paused" ? { mode: "past", at_ms: state.at_ms } : state;
    case "caughtUp":
      return state.mode === "replaying" ? LIVE : state;
  }
}

/** Whether the views show something else than now, and commands must wait. */
export function isPast(state: TimeState): boolean {
  return state.mode === "past" || state.mode === "replaying";
}

export interface TimeAddress {
  /** RFC 3339, or relative like "-15m"; empty for now. */
  t: string;
  /** The speed of a replay; empty for none. */
  x: string;
}

export function timeOfAddress({ t, x }: TimeAddress, now_ms: number): TimeState {
  const at_ms = t ? parseMoment(t, now_ms) : null;
  if (at_ms === null || at_ms >= now_ms) return LIVE;
  const speed = speedOf(x);
  return speed === null ? { mode: "past", at_ms } : { mode: "replaying", from_ms: at_ms, speed };
}

/** A pause is not in the address: who opens the link has nothing that could be still. */
export function addressOfTime(state: TimeState): TimeAddress {
  if (state.mode === "past") return { t: new Date(state.at_ms).toISOString(), x: "" };
  if (state.mode === "replaying") return { t: new Date(state.from_ms).toISOString(), x: String(state.speed) };
  return { t: "", x: "" };
}

export function speedOf(text: string): Speed | null {
  if (text === "max") return "max";
  const speed = Number(text);
  return text !== "" && speed > 0 && speed <= 100_000 ? speed : null;
}

export function speedWords(speed: Speed): string {
  return speed === "max" ? "max" : `×${speed}`;
}

/** The moment of an address; what cannot be read is left out. */
export function keptMoment(text: string | null): string {
  return text && parseMoment(text, 0) !== null ? text : "";
}
