/**
 * The server's clock, as well as the page can know it: ages and "now" follow the server, not the browser.
 * Of several samples the one with the shortest round trip counts; a sample gets old after a while, since clocks drift.
 */

const SAMPLE_AGE_MS_MAX = 10 * 60_000;

export class ServerClock {
  /** Add to the local time to get the server's. */
  offset_ms = 0;
  private roundTrip_ms = Infinity;
  private sampledAt_ms = -Infinity;

  /** An answer said `server_ms`; the request left at `sent_ms` and came back at `received_ms`, both local. */
  sample(server_ms: number, sent_ms: number, received_ms: number): void {
    const roundTrip_ms = received_ms - sent_ms;
    if (roundTrip_ms > this.roundTrip_ms && received_ms - this.sampledAt_ms < SAMPLE_AGE_MS_MAX) return;
    this.roundTrip_ms = roundTrip_ms;
    this.sampledAt_ms = received_ms;
    this.offset_ms = server_ms - (sent_ms + received_ms) / 2;
  }

  /** A message cannot come from the future: its time of receipt bounds the offset from below. */
  heard(server_ms: number, local_ms: number): void {
    if (server_ms - local_ms > this.offset_ms) this.offset_ms = server_ms - local_ms;
  }

  now(local_ms: number): number {
    return local_ms + this.offset_ms;
  }
}
