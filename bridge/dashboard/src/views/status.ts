/** The connection's state in words, never by colour alone. Pure. */
import { BEHIND_MS } from "../app/limits";
import type { ConnectionFrame } from "../stream/messages";
import { age, ordinal } from "../time/format";

export interface Status {
  sign: string;
  tone: "ok" | "wait" | "warn" | "bad";
  words: string;
  /** A press on it tries at once. */
  canRetry: boolean;
  /** The connection works. */
  isWell: boolean;
}

export function statusOf(state: ConnectionFrame | null, now_ms: number): Status {
  return { ...wordsOf(state, now_ms), isWell: state?.phase === "live" || state?.phase === "catching-up" };
}

function wordsOf(state: ConnectionFrame | null, now_ms: number): Omit<Status, "isWell"> {
  if (!state) return { sign: "◌", tone: "wait", words: "Connecting", canRetry: false };
  const delay_ms = state.delay_ms ?? 0;
  switch (state.phase) {
    case "stopped":
    case "connecting":
      if (state.attempt > 0) return { sign: "◐", tone: "warn", words: `Reconnecting, ${ordinal(state.attempt)} try`, canRetry: false };
      return { sign: "◌", tone: "wait", words: state.hasBeenOpen ? "Reconnecting" : "Connecting", canRetry: false };
    case "waiting": {
      const wait_s = Math.max(0, Math.ceil((state.retryAt_ms - now_ms) / 1000));
      const words = `Reconnecting, ${ordinal(state.attempt)} try${wait_s > 1 ? ` in ${wait_s} s` : ""}`;
      return { sign: "◐", tone: "warn", words, canRetry: true };
    }
    case "resting":
      return { sign: "◌", tone: "wait", words: "Asleep", canRetry: false };
    case "refused":
      if (state.refusal?.status === 401 || state.refusal?.status === 403) {
        return { sign: "■", tone: "bad", words: state.refusal.status === 401 ? "Signed out" : "Not allowed", canRetry: true };
      }
      return { sign: "✕", tone: "bad", words: "Refused", canRetry: true };
    case "catching-up":
    case "live":
      if (delay_ms > BEHIND_MS) return { sign: "▲", tone: "warn", words: `Behind ${age(delay_ms)}, catching up`, canRetry: false };
      if (state.phase === "catching-up") return { sign: "◌", tone: "wait", words: "Loading what is there", canRetry: false };
      if (state.conflated > 0) return { sign: "◇", tone: "wait", words: "Thinned", canRetry: false };
      return { sign: "●", tone: "ok", words: state.delay_ms === null ? "Live" : `Live ${delayWords(delay_ms)}`, canRetry: false };
  }
}

/** Rounded, so that the header does not flicker: 4 ms and 6 ms are the same to a person. */
function delayWords(delay_ms: number): string {
  if (delay_ms < 10) return "< 10 ms";
  if (delay_ms < 1000) return `${Math.round(delay_ms / 10) * 10} ms`;
  return `${(delay_ms / 1000).toFixed(1)} s`;
}
