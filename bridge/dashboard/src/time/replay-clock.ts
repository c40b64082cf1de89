/**
 * Where a replay is: the time of its last event, moved on at the chosen speed until the next one comes. Pure.
 * The server paces the events; between them only the clock knows that time goes on.
 */

/** "max" is as fast as the events come: the head stands at the last one. */
export type Speed = number | "max";

export class ReplayClock {
  private event_ms: number;
  private local_ms: number | null = null;

  constructor(
    from_ms: number,
    private readonly speed: Speed,
  ) {
    this.event_ms = from_ms;
  }

  /** The stream answered: time goes on from where it stood. */
  start(local_ms: number): void {
    this.local_ms = local_ms;
  }

  /** The stream is cut or over: time stands still. */
  stop(local_ms: number): void {
    this.event_ms = this.now(local_ms);
    this.local_ms = null;
  }

  /** An event of this time came: it is then. A head that ran ahead of a slow server goes back to it. */
  take(time_ms: number, local_ms: number): void {
    this.event_ms = time_ms;
    if (this.local_ms !== null) this.local_ms = local_ms;
  }

  now(local_ms: number): number {
    if (this.local_ms === null || this.speed === "max") return this.event_ms;
    return this.event_ms + Math.max(0, local_ms - this.local_ms) * this.speed;
  }
}
