/**
 * The tail: the latest messages, losses and skips, in the order they came, within a number and a size. Pure.
 * A view may be limited to one branch and held at one row ("paused here"); newer rows are then counted.
 */
import type { RecordData } from "../api/types";
import { TAIL_BYTES_MAX, TAIL_MESSAGES_MAX } from "../app/limits";
import type { Gap } from "../time/gaps";
import { originOf } from "./positions";

export type TailEntry = { number: number; time_ms: number; size: number } & (
  | { kind: "message"; record: RecordData; text: string; isCut: boolean; distance_ms: number; change: string }
  | { kind: "gap"; gap: Gap }
  | { kind: "skip"; from_ms: number }
);

export type NewEntry = TailEntry extends infer Entry ? (Entry extends TailEntry ? Omit<Entry, "number"> : never) : never;

export class Tail {
  private entries: TailEntry[] = [];
  private shown: TailEntry[] = [];
  private branch = "";
  private size = 0;
  private next = 1;
  private firstNumber = 1;

  /** Adds at the newest end. */
  add(entry: NewEntry): void {
    const numbered = { ...entry, number: this.next } as TailEntry;
    this.next += 1;
    this.entries.push(numbered);
    this.size += numbered.size;
    if (this.isShown(numbered)) this.shown.push(numbered);
    if (this.entries.length > TAIL_MESSAGES_MAX * 1.1 || this.size > TAIL_BYTES_MAX * 1.1) this.trim();
  }

  /**
   * Puts history (oldest first) before what came live; records that are there already are left out.
   * Numbers below the first one keep the rows that a person reads in place.
   */
  addHistory(history: Omit<Extract<TailEntry, { kind: "message" }>, "number">[]): void {
    const known = new Set<string>();
    let oldest_ms = Infinity;
    for (const entry of this.entries) {
      if (entry.kind !== "message") continue;
      known.add(keyOf(entry.record));
      if (entry.time_ms < oldest_ms) oldest_ms = entry.time_ms;
    }
    const fresh = history.filter((entry) => !known.has(keyOf(entry.record)) && entry.time_ms <= oldest_ms);
    this.firstNumber -= fresh.length;
    this.entries = [...fresh.map((entry, index) => ({ ...entry, number: this.firstNumber + index })), ...this.entries];
    for (const entry of fresh) this.size += entry.size;
    this.trim();
  }

  /** Limits the view to a branch; an empty text shows all. */
  setBranch(branch: string): void {
    if (branch === this.branch) return;
    this.branch = branch;
    this.shown = this.entries.filter((entry) => this.isShown(entry));
  }

  /** Rows `first … first + count` counted from the newest, or from the row numbered `heldAt`. */
  window(first: number, count: number, heldAt: number | null): { rows: TailEntry[]; total: number; newer: number } {
    const end = heldAt === null ? this.shown.length : this.indexAfter(heldAt);
    const rows: TailEntry[] = [];
    for (let index = end - 1 - first; index >= 0 && rows.length < count; index -= 1) {
      const entry = this.shown[index];
      if (entry) rows.push(entry);
    }
    return { rows, total: end, newer: this.shown.length - end };
  }

  find(number: number): TailEntry | undefined {
    return this.entries[this.indexIn(this.entries, number) - 1];
  }

  clear(): void {
    this.entries = [];
    this.shown = [];
    this.size = 0;
  }

  private isShown(entry: TailEntry): boolean {
    if (this.branch === "" || entry.kind !== "message") return true;
    const topic = entry.record.topic;
    return topic.startsWith(this.branch) && (topic.length === this.branch.length || topic[this.branch.length] === "/");
  }

  private indexAfter(number: number): number {
    return this.indexIn(this.shown, number);
  }

  /** How many entries have a number up to this one; numbers rise. */
  private indexIn(entries: readonly TailEntry[], number: number): number {
    let low = 0;
    let high = entries.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((entries[middle]?.number ?? 0) <= number) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  private trim(): void {
    let drop = Math.max(0, this.entries.length - TAIL_MESSAGES_MAX);
    let size = this.size;
    for (let index = 0; index < this.entries.length && (index < drop || size > TAIL_BYTES_MAX); index += 1) {
      size -= this.entries[index]?.size ?? 0;
      drop = Math.max(drop, index + 1);
    }
    this.size = size;
    if (drop) this.entries.splice(0, drop);
    this.shown = this.branch === "" ? this.entries.slice() : this.entries.filter((entry) => this.isShown(entry));
  }
}

export function keyOf(record: RecordData): string {
  return `${originOf(record)} ${record.offset}`;
}
