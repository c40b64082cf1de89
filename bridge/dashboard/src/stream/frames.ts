/** Reads from the model what the page has on screen. Pure; `now_ms` is the server's clock. */
import type { FieldFrame, TailFrame, TailRow, TreeFrame, TreeRow, ValuesFrame, ViewRequest } from "./messages";
import type { Model } from "./model";
import { PLOT_BUFFER_MAX, PLOTS_MAX, TAIL_ROWS_MAX, TREE_ROWS_MAX } from "../app/limits";
import { plotted, type Kind } from "../payload/classify";
import { fieldName, type Scalar } from "../payload/fields";
import { oneLine, scalarText, valueText } from "../payload/summary";
import { unitOfName } from "../payload/units";
import { fieldsOfBranch, fieldsUnasked, idOf, type ShownField } from "../store/selection";
import type { TopicSeries } from "../store/series";
import type { TopicNode } from "../store/topic-tree";

export function treeFrame(model: Model, view: ViewRequest, now_ms: number): TreeFrame {
  const list = model.treeView.list(now_ms);
  const count = Math.min(view.tree.count, TREE_ROWS_MAX);
  const first = Math.max(0, Math.min(view.tree.first, list.length - count));
  const rows: TreeRow[] = [];
  const siblingRates = new Map<TopicNode, number>();
  for (let index = first; index < Math.min(first + count, list.length); index += 1) {
    const node = list[index];
    if (node) rows.push(treeRow(model, node, siblingRates, now_ms));
  }
  return {
    first,
    total: list.length,
    rows,
    topics: model.tree.topics,
    overflowed: model.tree.overflowed,
    rate: model.tree.root.rate(now_ms),
    isEmpty: model.isComplete && model.tree.topics === 0,
  };
}

function treeRow(model: Model, node: TopicNode, siblingRates: Map<TopicNode, number>, now_ms: number): TreeRow {
  const parent = node.parent ?? node;
  let siblingRate = siblingRates.get(parent);
  if (siblingRate === undefined) {
    siblingRate = 0;
    for (const sibling of parent.children.values()) siblingRate += sibling.rate(now_ms);
    siblingRates.set(parent, siblingRate);
  }
  const rate = node.rate(now_ms);
  const record = node.latest?.record;
  const profile = record ? model.profiles.get(node.path) : undefined;
  const unit = profile?.unit || unitOfName(node.name).unit;
  return {
    path: node.path,
    name: node.name,
    level: node.depth,
    isTopic: record !== undefined,
    hasChildren: node.children.size > 0,
    isOpen: model.treeView.isOpen(node),
    topics: node.topics,
    value: record ? valueText(record.payload, record.encoding, unit) : "",
    spark: profile ? profile.spark.slice() : [],
    rate,
    share: siblingRate > 0 && parent.children.size > 1 ? rate / siblingRate : 0,
    // Beside a value stands the value's age, beside a level that of its newest topic.
    lastTime_ms: record ? Date.parse(record.time) : node.lastTime_ms,
    interval_ms: node.latest?.interval_ms ?? Number.NaN,
    position: node.position,
    siblings: parent.children.size,
  };
}

export function tailFrame(model: Model, view: ViewRequest, now_ms: number): TailFrame {
  const branch = view.tail.isWholeTail ? "" : view.selected;
  model.tail.setBranch(branch);
  const { rows, total, newer } = model.tail.window(view.tail.first, Math.min(view.tail.count, TAIL_ROWS_MAX), view.tail.heldAt);
  const node = branch === "" ? model.tree.root : model.tree.branch(branch);
  return {
    first: view.tail.first,
    total,
    newer,
    rate: model.isComplete ? (node?.rate(now_ms) ?? 0) : Number.NaN,
    history: model.tailHistory,
    fault: model.tailFault,
    rows: rows.map((entry): TailRow => {
      if (entry.kind === "gap") return { kind: "gap", number: entry.number, gap: { ...entry.gap } };
      if (entry.kind === "skip") return { kind: "skip", number: entry.number, from_ms: entry.from_ms, to_ms: entry.time_ms };
      return {
        kind: "message",
        number: entry.number,
        time_ms: entry.time_ms,
        distance_ms: entry.distance_ms,
        topic: entry.record.topic,
        clientId: entry.record.client_id,
        qos: entry.record.qos,
        retain: entry.record.retain,
        text: oneLine(entry.text),
        isTombstone: entry.record.encoding === "null",
        change: entry.change,
      };
    }),
  };
}

interface Sent {
  series: TopicSeries;
  version: number;
  added: number;
  /** Points sent since all of them were. */
  points: number;
  kind: Kind;
  states: string[];
}

/** Chooses the fields on screen and hands out points that were not sent yet. */
export class ValuesReader {
  private unasked: ShownField[] = [];
  private readonly sent = new Map<string, Sent>();

  /** Sends all points again: what was sent may not have been shown. */
  forget(): void {
    this.sent.clear();
  }

  /** `isPast`: the fields that were chosen for now are shown at other moments, too, so that they can be compared. */
  choose(model: Model, view: ViewRequest, isPast: boolean): { fields: ShownField[]; total: number } {
    if (view.selected) {
      const branch = model.tree.branch(view.selected);
      return branch ? fieldsOfBranch(branch, model.profiles) : { fields: [], total: 0 };
    }
    const chosen = fieldsUnasked(model.profiles, this.unasked, isPast);
    if (!isPast || this.unasked.length === 0) this.unasked = chosen.fields;
    return chosen;
  }

  frame(model: Model, view: ViewRequest, isPast = false): ValuesFrame {
    const { fields, total } = this.choose(model, view, isPast);
    const shown = fields.slice(0, PLOTS_MAX);
    const ids = new Set(shown.map(idOf));
    for (const id of this.sent.keys()) if (!ids.has(id)) this.sent.delete(id);
    return { selected: view.selected, total, fields: shown.map((field) => this.fieldFrame(model, view, field)) };
  }

  private fieldFrame(model: Model, view: ViewRequest, field: ShownField): FieldFrame {
    const node = model.tree.find(field.topic);
    const profile = model.profiles.get(field.topic);
    const fieldProfile = profile?.fields.get(field.pointer);
    const series = model.series.show(field.topic);
    const name = field.pointer ? fieldName(field.pointer) : lastLevel(field.topic);
    const { label, unit } = unitOfName(name);
    const frame: FieldFrame = {
      id: idOf(field),
      topic: field.topic,
      pointer: field.pointer,
      label: field.pointer ? label : relative(label, field.topic, view.selected),
      unit: unit || fieldProfile?.unit || (field.kind === "number" ? (profile?.unit ?? "") : ""),
      kind: field.kind,
      value: fieldProfile ? oneLine(scalarText(shownNumber(fieldProfile.last))) : "",
      lastTime_ms: node?.lastTime_ms ?? 0,
      history: series.historyState === "none" ? "loading" : series.historyState,
      fault: series.historyFault,
      states: [],
    };
    if (field.kind !== "text" && field.kind !== "time" && field.kind !== "empty") this.addPoints(frame, series);
    return frame;
  }

  private addPoints(frame: FieldFrame, series: TopicSeries): void {
    let sent = this.sent.get(frame.id);
    const isOther = !sent || sent.series !== series || sent.version !== series.version || isState(sent.kind) !== isState(frame.kind);
    const isReset = isOther || (sent?.points ?? 0) > PLOT_BUFFER_MAX;
    if (!sent || isReset) {
      sent = { series, version: series.version, added: 0, points: 0, kind: frame.kind, states: [] };
      this.sent.set(frame.id, sent);
    }
    frame.states = sent.states;
    const start = isReset ? 0 : series.startOf(sent.added);
    sent.added = series.added;
    sent.kind = frame.kind;
    if (start >= series.times.length && !isReset) return;
    const points: NonNullable<FieldFrame["points"]> = { isReset, times: [], values: [], low: [], high: [] };
    if (isReset && !isState(frame.kind)) addReduced(points, series, frame.pointer);
    const column = series.columns.get(frame.pointer) ?? [];
    for (let index = start; index < series.times.length; index += 1) {
      const scalar = column[index];
      if (scalar === undefined || scalar === null) continue;
      const value = isState(frame.kind) ? stateIndex(sent.states, scalar) : plotted(scalar);
      if (Number.isNaN(value)) continue;
      points.times.push(series.times[index] ?? 0);
      points.values.push(value);
    }
    sent.points += points.times.length;
    if (isReset || points.times.length) frame.points = points;
  }
}

/** What is before the first point, each point for several messages. */
function addReduced(points: NonNullable<FieldFrame["points"]>, series: TopicSeries, pointer: string): void {
  const reduced = series.reduced.get(pointer);
  if (!reduced) return;
  const end_ms = series.times[0] ?? Infinity;
  for (let index = 0; index < reduced.times.length && (reduced.times[index] ?? 0) < end_ms; index += 1) {
    points.times.push(reduced.times[index] ?? 0);
    points.values.push(reduced.last[index] ?? null);
    points.low.push(reduced.low[index] ?? 0);
    points.high.push(reduced.high[index] ?? 0);
  }
}

function isState(kind: Kind): boolean {
  return kind === "boolean" || kind === "enum";
}

function stateIndex(states: string[], value: Scalar): number {
  const text = String(value);
  const index = states.indexOf(text);
  return index >= 0 ? index : states.push(text) - 1;
}

/** "21.5 °C" is shown as its number; the unit stands beside the label. */
function shownNumber(value: Scalar): Scalar {
  const number = typeof value === "string" ? plotted(value) : Number.NaN;
  return Number.isNaN(number) ? value : number;
}

function lastLevel(topic: string): string {
  return topic.slice(topic.lastIndexOf("/") + 1) || topic;
}

function relative(label: string, topic: string, selected: string): string {
  return topic === selected ? lastLevel(topic) : label;
}
