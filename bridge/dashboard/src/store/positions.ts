/**
 * Which records of a topic were seen: (stream, epoch, partition, offset). Within a topic and partition offsets only rise,
 * so the last one is enough; after a resume a conflated topic's latest value may come again and is dropped here.
 */
import type { RecordData } from "../api/types";

export type Placed = Pick<RecordData, "stream" | "epoch" | "partition" | "offset">;

export function originOf(record: Placed): string {
  return `${record.stream} ${record.epoch} ${record.partition}`;
}

export class TopicPositions {
  private origin = "";
  private offset = -1;
  /** Only topics whose records lie in several partitions or epochs have this. */
  private others: Map<string, number> | null = null;

  /** Whether this record, or a later one of its place, was taken; also true for places that are not known. */
  covers(record: Placed): boolean {
    const origin = originOf(record);
    const offset = origin === this.origin ? this.offset : this.others?.get(origin);
    return offset === undefined || record.offset <= offset;
  }

  /** False when this record, or a later one of its place, was already taken. */
  take(record: Placed): boolean {
    const origin = originOf(record);
    if (origin !== this.origin) {
      if (this.origin) (this.others ??= new Map()).set(this.origin, this.offset);
      this.origin = origin;
      this.offset = this.others?.get(origin) ?? -1;
      if (this.others && this.others.size > 64) this.others.delete(this.others.keys().next().value ?? "");
    }
    if (record.offset <= this.offset) return false;
    this.offset = record.offset;
    return true;
  }
}
