/**
 * What is known about the fields of a topic: their kinds, when they last changed, and the last points for a sparkline.
 * Bounded: the topic that was heard or seen longest ago goes first. Pure.
 */
import type { RecordData } from "../api/types";
import { FIELDS_MAX, PROFILES_MAX, SPARK_POINTS } from "../app/limits";
import { FieldProfile, plotted, type Kind } from "../payload/classify";
import { eachField, type Scalar } from "../payload/fields";
import { statedUnit } from "../payload/units";

export class TopicProfile {
  readonly fields = new Map<string, FieldProfile>();
  readonly spark: number[] = [];
  /** The unit that the message itself states. */
  unit = "";
  private sparkField: string | null = null;

  take(record: RecordData, time_ms: number): void {
    if (record.encoding === "base64" || record.encoding === "null") return;
    const unit = statedUnit(record.payload, record.properties);
    if (unit) this.unit = unit;
    eachField(record.payload, (pointer, value) => this.takeField(pointer, value, time_ms));
  }

  private takeField(pointer: string, value: Scalar, time_ms: number): void {
    let field = this.fields.get(pointer);
    if (!field) {
      if (this.fields.size >= FIELDS_MAX) return;
      field = new FieldProfile();
      this.fields.set(pointer, field);
    }
    field.take(value, time_ms);
    const number = typeof value === "boolean" ? Number(value) : plotted(value);
    if (Number.isNaN(number)) return;
    if (this.sparkField === null && field.kind !== "time") this.sparkField = pointer;
    if (pointer !== this.sparkField) return;
    this.spark.push(number);
    if (this.spark.length > SPARK_POINTS) this.spark.shift();
  }
}

export class Profiles {
  private readonly byTopic = new Map<string, TopicProfile>();

  get(topic: string): TopicProfile | undefined {
    return this.byTopic.get(topic);
  }

  /** The topic's profile, made when it is new; it becomes the last to go. */
  touch(topic: string): TopicProfile {
    let profile = this.byTopic.get(topic);
    if (profile) {
      // Moving to the end is only needed when something may have to go.
      if (this.byTopic.size < PROFILES_MAX) return profile;
      this.byTopic.delete(topic);
    } else profile = new TopicProfile();
    this.byTopic.set(topic, profile);
    if (this.byTopic.size > PROFILES_MAX) {
      const oldest = this.byTopic.keys().next().value;
      if (oldest !== undefined) this.byTopic.delete(oldest);
    }
    return profile;
  }

  put(topic: string, profile: TopicProfile): void {
    if (this.byTopic.has(topic) || this.byTopic.size < PROFILES_MAX) this.byTopic.set(topic, profile);
  }

  entries(): IterableIterator<[string, TopicProfile]> {
    return this.byTopic.entries();
  }

  clear(): void {
    this.byTopic.clear();
  }
}

/** Kinds that are drawn over time; others are shown as their latest value. */
export function isDrawn(kind: Kind): boolean {
  return kind === "number" || kind === "counter" || kind === "boolean" || kind === "enum";
}

export function isNumeric(kind: Kind | undefined): boolean {
  return kind === "number" || kind === "counter";
}
