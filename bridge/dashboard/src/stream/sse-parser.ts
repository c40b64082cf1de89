/**
 * Server-Sent Events from pieces of text, cut anywhere. Lines end with LF or CRLF: no server of ours sends a lone CR.
 * An `id:` counts only when its blank line has come, so `lastEventId` never names an event that was cut off.
 */
import { EVENT_CHARS_MAX } from "../app/limits";

export interface ServerEvent {
  name: string;
  data: string;
}

export class EventTooLong extends Error {}

export class SseParser {
  /** Id of the last complete block, also of one that had an id alone. */
  lastEventId: string | null = null;
  /** The server's wish for the wait before a reconnect, in milliseconds. */
  retry_ms: number | null = null;

  private rest = "";
  private searched = 0;
  private name = "";
  private data: string[] = [];
  private id: string | null = null;

  /** Takes the next piece and returns the events that it completed, in order. */
  feed(piece: string): ServerEvent[] {
    const events: ServerEvent[] = [];
    const text = this.rest + piece;
    let start = 0;
    let end = text.indexOf("\n", this.searched);
    while (end >= 0) {
      const stop = end > start && text.charCodeAt(end - 1) === 13 ? end - 1 : end;
      if (stop === start) this.finish(events);
      else this.line(text.slice(start, stop));
      start = end + 1;
      end = text.indexOf("\n", start);
    }
    this.rest = start ? text.slice(start) : text;
    this.searched = this.rest.length;
    if (this.rest.length > EVENT_CHARS_MAX) throw new EventTooLong(`an event of more than ${EVENT_CHARS_MAX} characters`);
    return events;
  }

  private line(line: string): void {
    const colon = line.indexOf(":");
    if (colon === 0) return; // a comment: the heartbeat
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(line.charCodeAt(colon + 1) === 32 ? colon + 2 : colon + 1);
    if (field === "data") this.data.push(value);
    else if (field === "event") this.name = value;
    else if (field === "id" && !value.includes("\0")) this.id = value;
    else if (field === "retry" && /^\d+$/.test(value)) this.retry_ms = Number(value);
  }

  private finish(events: ServerEvent[]): void {
    if (this.id !== null) this.lastEventId = this.id;
    if (this.data.length) events.push({ name: this.name || "message", data: this.data.join("\n") });
    this.id = null;
    this.name = "";
    if (this.data.length) this.data = [];
  }
}
