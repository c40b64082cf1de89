/**
 * The state of the page's one stream, as a pure machine: inputs and a time go in, the next state and effects come out.
 * It opens no socket and reads no clock; the worker carries the effects out.
 */
import { AWAY_MS_MAX, HEARTBEAT_S, HIDDEN_STREAM_MS, SILENT_HEARTBEATS_MAX } from "../app/limits";
import { backoff_ms } from "./backoff";

export type Phase =
  | "connecting" // asked, no answer yet
  | "catching-up" // answered; snapshot or history is coming
  | "live"
  | "waiting" // cut off; the next try has its time
  | "resting" // hidden for long, or not wanted for a while: closed by ourselves, the cursor is kept
  | "refused" // the server will not have this request; only a person can change that
  | "stopped"; // no connection wanted

export interface ConnectionState {
  phase: Phase;
  /** Tries since the stream last answered; 0 while it answers. */
  attempt: number;
  /** When to try again, in phase `waiting`. */
  retryAt_ms: number;
  /** Last byte received, or the start of the request. */
  heardAt_ms: number;
  /** Since when nothing was received or shown; null while all is well. Decides between resume and snapshot. */
  awaySince_ms: number | null;
  hiddenSince_ms: number | null;
  /** The next opening starts with a snapshot instead of the cursor. */
  isFresh: boolean;
  /** Nobody wants the stream until `wake`; being shown does not open it. */
  isAsleep: boolean;
  refusal: { status: number; text: string } | null;
  /** The stream was open at least once: words differ between "Connecting" and "Reconnecting". */
  hasBeenOpen: boolean;
}

export type Input =
  | { kind: "start" } // also: another filter
  | { kind: "opened" }
  | { kind: "bytes" }
  | { kind: "live" }
  | { kind: "closed"; retry_ms: number }
  | { kind: "refused"; status: number; text: string }
  | { kind: "tick" }
  | { kind: "now" } // a person pressed it, or the network came back
  | { kind: "hidden" }
  | { kind: "shown" }
  | { kind: "sleep" } // another stream takes its place for a while
  | { kind: "wake" }
  | { kind: "stop" };

export type Effect = { kind: "open"; isFresh: boolean } | { kind: "abort" } | { kind: "skipped"; away_ms: number };

export interface Step {
  state: ConnectionState;
  effects: Effect[];
}

export const INITIAL: ConnectionState = {
  phase: "stopped",
  attempt: 0,
  retryAt_ms: 0,
  heardAt_ms: 0,
  awaySince_ms: null,
  hiddenSince_ms: null,
  isFresh: true,
  isAsleep: false,
  refusal: null,
  hasBeenOpen: false,
};

/** Milliseconds without a byte after which a connection is dead. */
export function silence_ms(heartbeat_s: number = HEARTBEAT_S): number {
  return heartbeat_s * 1000 * SILENT_HEARTBEATS_MAX;
}

/** `random` in [0, 1) is for the jitter. */
export function step(
  state: ConnectionState,
  input: Input,
  now_ms: number,
  random: number,
  heartbeat_s: number = HEARTBEAT_S,
): Step {
  switch (input.kind) {
    case "start":
      if (state.isAsleep) return stay({ ...state, isFresh: true, awaySince_ms: null });
      return open({ ...state, isFresh: true, awaySince_ms: null, attempt: 0 }, now_ms, [{ kind: "abort" }], false);
    case "opened":
      return stay({ ...state, phase: "catching-up", attempt: 0, heardAt_ms: now_ms, awaySince_ms: null, hasBeenOpen: true, isFresh: false, refusal: null });
    case "bytes":
      return stay({ ...state, heardAt_ms: now_ms });
    case "live":
      return stay({ ...state, phase: "live" });
    case "closed":
      return isOpen(state) ? cut(state, now_ms, random, input.retry_ms) : stay(state);
    case "refused":
      return stay({ ...state, phase: "refused", refusal: { status: input.status, text: input.text } });
    case "tick":
      return tick(state, now_ms, random, heartbeat_s);
    case "now":
      return state.phase === "waiting" || state.phase === "refused" ? open(state, now_ms) : stay(state);
    case "hidden":
      return stay({ ...state, hiddenSince_ms: state.hiddenSince_ms ?? now_ms });
    case "shown": {
      const shown = { ...state, hiddenSince_ms: null };
      if (state.isAsleep) return stay(shown);
      return state.phase === "resting" || state.phase === "waiting" ? open(shown, now_ms) : stay(shown);
    }
    case "sleep":
      if (state.isAsleep) return stay(state);
      return { state: { ...state, phase: "resting", isAsleep: true, awaySince_ms: state.awaySince_ms ?? now_ms }, effects: [{ kind: "abort" }] };
    case "wake":
      return state.isAsleep ? open({ ...state, isAsleep: false, attempt: 0 }, now_ms) : stay(state);
    case "stop":
      return { state: { ...state, phase: "stopped" }, effects: [{ kind: "abort" }] };
  }
}

function stay(state: ConnectionState): Step {
  return { state, effects: [] };
}

export function isOpen(state: ConnectionState): boolean {
  return state.phase === "connecting" || state.phase === "catching-up" || state.phase === "live";
}

function open(state: ConnectionState, now_ms: number, before: Effect[] = [], tellsSkipped = true): Step {
  const away_ms = state.awaySince_ms === null ? 0 : now_ms - state.awaySince_ms;
  const isTooLong = away_ms > AWAY_MS_MAX;
  const isFresh = state.isFresh || isTooLong;
  const effects: Effect[] = [...before];
  // Skipped is not lost: the records are in the log. Said once, at the opening that skips them.
  if (isTooLong && tellsSkipped && !state.isFresh) effects.push({ kind: "skipped", away_ms });
  effects.push({ kind: "open", isFresh });
  return { state: { ...state, phase: "connecting", heardAt_ms: now_ms, isFresh, refusal: null }, effects };
}

function cut(state: ConnectionState, now_ms: number, random: number, least_ms: number): Step {
  const attempt = state.attempt + 1;
  const retryAt_ms = now_ms + backoff_ms(attempt, random, least_ms);
  const awaySince_ms = state.awaySince_ms ?? state.heardAt_ms;
  return stay({ ...state, phase: "waiting", attempt, retryAt_ms, awaySince_ms });
}

function tick(state: ConnectionState, now_ms: number, random: number, heartbeat_s: number): Step {
  if (isOpen(state) && state.hiddenSince_ms !== null && now_ms - state.hiddenSince_ms > HIDDEN_STREAM_MS) {
    const rested: ConnectionState = { ...state, phase: "resting", awaySince_ms: state.awaySince_ms ?? now_ms };
    return { state: rested, effects: [{ kind: "abort" }] };
  }
  if (isOpen(state) && now_ms - state.heardAt_ms > silence_ms(heartbeat_s)) {
    const step = cut(state, now_ms, random, 0);
    return { state: step.state, effects: [{ kind: "abort" }] };
  }
  if (state.phase === "waiting" && now_ms >= state.retryAt_ms && state.hiddenSince_ms === null) return open(state, now_ms);
  return stay(state);
}
