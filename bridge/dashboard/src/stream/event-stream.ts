/**
 * One stream of Server-Sent Events, kept open: it asks, reads, and resumes at its cursor, as the connection machine says.
 * What is asked for and what the events mean belongs to its owner.
 */
import { problemText, type ApiClient } from "../api/client";
import { INITIAL, step, type ConnectionState, type Effect, type Input } from "./connection";
import { EventTooLong, SseParser, type ServerEvent } from "./sse-parser";

/** Answers that a repeat of the same request will not change. */
const REFUSALS = new Set([400, 401, 403, 404, 405, 406, 410, 414, 431]);

export interface StreamOwner {
  /** The query of the next opening; a fresh one has no cursor to go on from. */
  query(isFresh: boolean): [string, string][];
  opened(isFresh: boolean): void;
  event(event: ServerEvent): void;
  /** The next opening is fresh, because the last one is long ago. */
  skipped(away_ms: number): void;
  /** Phase or number of tries changed. */
  changed(): void;
}

export class EventStream {
  state: ConnectionState = INITIAL;
  /** How often it was opened. */
  opened = 0;
  openedAt_ms = 0;
  private cursor: string | null = null;
  private retry_ms = 0;
  private abort: AbortController | null = null;

  constructor(
    private readonly api: ApiClient,
    private readonly heartbeat_s: number,
    private readonly owner: StreamOwner,
  ) {}

  input(input: Input): void {
    const before = this.state;
    const { state, effects } = step(before, input, Date.now(), Math.random(), this.heartbeat_s);
    this.state = state;
    for (const effect of effects) this.carryOut(effect);
    if (state.phase !== before.phase || state.attempt !== before.attempt) this.owner.changed();
  }

  private carryOut(effect: Effect): void {
    if (effect.kind === "abort") this.abort?.abort();
    else if (effect.kind === "skipped") this.owner.skipped(effect.away_ms);
    else void this.open(effect.isFresh);
  }

  private async open(isFresh: boolean): Promise<void> {
    this.abort?.abort();
    const abort = new AbortController();
    this.abort = abort;
    const headers: Record<string, string> = { Accept: "text/event-stream" };
    if (!isFresh && this.cursor) headers["Last-Event-ID"] = this.cursor;
    let fault: unknown = null;
    try {
      const url = this.api.url("events", this.owner.query(isFresh));
      const response = await fetch(url, { headers, signal: abort.signal, cache: "no-store" });
      if (!response.ok || !response.body) {
        await this.refuse(response, abort);
        return;
      }
      this.hasOpened(isFresh);
      await this.read(response.body.getReader(), abort);
    } catch (error) {
      fault = error;
    }
    if (this.abort !== abort || abort.signal.aborted) return; // we closed it ourselves
    if (fault instanceof SyntaxError || fault instanceof EventTooLong) {
      // Not a cut: something between here and the server speaks another language, and would again.
      abort.abort();
      this.input({ kind: "refused", status: 200, text: `the stream holds what this page cannot read: ${fault.message}` });
      return;
    }
    this.input({ kind: "closed", retry_ms: this.retry_ms });
  }

  private async refuse(response: Response, abort: AbortController): Promise<void> {
    const text = await problemText(response);
    if (this.abort !== abort) return;
    if (REFUSALS.has(response.status)) this.input({ kind: "refused", status: response.status, text });
    else this.input({ kind: "closed", retry_ms: Number(response.headers.get("Retry-After") ?? 0) * 1000 || 0 });
  }

  private hasOpened(isFresh: boolean): void {
    this.opened += 1;
    this.openedAt_ms = Date.now();
    if (isFresh) this.cursor = null; // the old one would bring back what is skipped
    this.owner.opened(isFresh);
    this.input({ kind: "opened" });
  }

  private async read(reader: ReadableStreamDefaultReader<Uint8Array>, abort: AbortController): Promise<void> {
    const decoder = new TextDecoder();
    const parser = new SseParser();
    for (;;) {
      const { done, value } = await reader.read();
      if (done || this.abort !== abort || abort.signal.aborted) return;
      this.input({ kind: "bytes" });
      const events = parser.feed(decoder.decode(value, { stream: true }));
      for (const event of events) this.owner.event(event);
      if (parser.lastEventId !== null) this.cursor = parser.lastEventId;
      if (parser.retry_ms !== null) this.retry_ms = parser.retry_ms;
    }
  }
}
