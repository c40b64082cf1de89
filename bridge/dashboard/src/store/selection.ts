/**
 * Which fields the values panel shows: those of the selected branch, or with nothing selected six that change. Pure.
 */
import { PLOTS_MAX, PLOTS_UNASKED } from "../app/limits";
import type { Kind } from "../payload/classify";
import { fieldName } from "../payload/fields";
import { isDrawn, type Profiles, type TopicProfile } from "./profiles";
import type { TopicNode } from "./topic-tree";

export interface ShownField {
  topic: string;
  pointer: string;
  kind: Kind;
}

export interface Selection {
  fields: ShownField[];
  /** Fields of the branch in all, also those that are not shown. */
  total: number;
}

const collator = new Intl.Collator("en", { numeric: true });

/** The fields of a branch in the order of its topics; numbers and states first, texts behind. */
export function fieldsOfBranch(branch: TopicNode, profiles: Profiles): Selection {
  const drawn: ShownField[] = [];
  const texts: ShownField[] = [];
  let total = 0;
  const walk = (node: TopicNode): void => {
    const profile = node.latest ? profiles.get(node.path) : undefined;
    if (profile) {
      for (const [pointer, field] of profile.fields) {
        total += 1;
        const kind = field.kind;
        const list = isDrawn(kind) ? drawn : texts;
        if (list.length < PLOTS_MAX) list.push({ topic: node.path, pointer, kind });
      }
    }
    if (total > PLOTS_MAX * 8) return; // counted no further: the title says "of 190 and more"
    for (const child of [...node.children.values()].sort((left, right) => collator.compare(left.name, right.name))) walk(child);
  };
  walk(branch);
  return { fields: [...drawn, ...texts].slice(0, PLOTS_MAX), total };
}

/**
 * Six fields that are not constant, as different from each other as there are: in turn from each branch at the top, and
 * first one of each name, then more. Those shown before stay, so that plots do not jump under the eyes; with `keepsAll`
 * also when nothing is known of their changes.
 */
export function fieldsUnasked(profiles: Profiles, before: readonly ShownField[], keepsAll = false): Selection {
  const isKept = (field: ShownField): boolean => {
    const profile = profiles.get(field.topic)?.fields.get(field.pointer);
    return profile !== undefined && (keepsAll || !profile.isConstant);
  };
  const kept = before.filter(isKept);
  const fields = kept.map((field) => ({ ...field, kind: kindOf(profiles, field) }));
  let total = 0;
  const candidates: (ShownField & { changedAt_ms: number })[] = [];
  for (const [topic, profile] of profiles.entries()) {
    for (const [pointer, field] of profile.fields) {
      total += 1;
      if (fields.length >= PLOTS_UNASKED) continue;
      const kind = field.kind;
      if (isDrawn(kind)) candidates.push({ topic, pointer, kind, changedAt_ms: field.changedAt_ms });
    }
  }
  const taken = new Set(fields.map(idOf));
  const names = new Set(fields.map(shortName));
  const ways: ((field: ShownField & { changedAt_ms: number }) => boolean)[] = [
    (field) => field.changedAt_ms > 0 && (field.kind === "number" || field.kind === "counter") && !names.has(shortName(field)),
    (field) => field.changedAt_ms > 0 && !names.has(shortName(field)),
    (field) => field.changedAt_ms > 0,
    () => true,
  ];
  candidates.sort((left, right) => right.changedAt_ms - left.changedAt_ms);
  const branches = new Map<string, typeof candidates>();
  for (const field of candidates) {
    const name = field.topic.split("/", 1)[0] ?? "";
    const branch = branches.get(name);
    if (branch) branch.push(field);
    else branches.set(name, [field]);
  }
  for (const isWanted of ways) {
    let count = -1;
    while (fields.length < PLOTS_UNASKED && fields.length !== count) {
      count = fields.length;
      for (const branch of branches.values()) {
        const field = branch.find((candidate) => !taken.has(idOf(candidate)) && isWanted(candidate));
        if (!field || fields.length >= PLOTS_UNASKED) continue;
        taken.add(idOf(field));
        names.add(shortName(field));
        fields.push({ topic: field.topic, pointer: field.pointer, kind: field.kind });
      }
    }
  }
  return { fields, total };
}

export function idOf(field: { topic: string; pointer: string }): string {
  return `${field.topic} ${field.pointer}`;
}

function shortName(field: ShownField): string {
  return field.pointer ? fieldName(field.pointer) : field.topic.slice(field.topic.lastIndexOf("/") + 1);
}

/** One value alone may be anything: what the field was before says more. */
function kindOf(profiles: Profiles, field: ShownField): Kind {
  const profile: TopicProfile | undefined = profiles.get(field.topic);
  const now = profile?.fields.get(field.pointer);
  return now === undefined || now.isConstant ? field.kind : now.kind;
}
