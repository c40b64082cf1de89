/** How long to wait before the next try: doubling with full jitter. */
import { RETRY_FIRST_MS, RETRY_MAX_MS } from "../app/limits";

/**
 * Milliseconds before try number `attempt` (1 is the first after a cut). `random` is in [0, 1).
 * Never less than `least_ms`, the server's `retry:` or `Retry-After`.
 */
export function backoff_ms(attempt: number, random: number, least_ms = 0): number {
  const ceiling = Math.min(RETRY_MAX_MS, RETRY_FIRST_MS * 2 ** Math.min(attempt - 1, 16));
  return Math.max(least_ms, Math.round(ceiling * random));
}
