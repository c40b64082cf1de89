/**
 * The tree as a list of rows: which levels are open, in which order, and the part that is on screen. Pure.
 * The list is made again only when levels, order or openness changed; its rows are read when they are shown.
 */
import { RESORT_MS, TREE_AUTO_ROWS } from "../app/limits";
import type { TopicNode, TopicTree } from "./topic-tree";

export type Sort = "name" | "rate" | "bytes" | "newest" | "silent";
export const SORTS: readonly Sort[] = ["name", "rate", "bytes", "newest", "silent"];

const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });

export class TreeView {
  sort: Sort = "name";
  private rows: TopicNode[] = [];
  private shape = -1;
  private madeAt_ms = -Infinity;
  private isDirty = true;
  private readonly opened = new Set<string>();

  /** `chosen`: levels that a person opened (true) or closed (false); others follow `opened`. Shared by views of one tree. */
  constructor(
    private readonly tree: TopicTree,
    private readonly chosen = new Map<string, boolean>(),
  ) {}

  /** The same levels open as in a view of the same topics at another moment. */
  adopt(other: TreeView): TreeView {
    const view = new TreeView(this.tree, other.chosen);
    for (const path of other.opened) view.opened.add(path);
    view.sort = other.sort;
    return view;
  }

  get hasOpened(): boolean {
    return this.opened.size > 0 || this.chosen.size > 0;
  }

  isOpen(node: TopicNode): boolean {
    return this.chosen.get(node.path) ?? this.opened.has(node.path);
  }

  setOpen(path: string, isOpen: boolean): void {
    this.chosen.set(path, isOpen);
    this.isDirty = true;
  }

  setSort(sort: Sort): void {
    this.sort = sort;
    this.isDirty = true;
  }

  /**
   * Opens levels as far as their rows fit one screen, so that the first value needs no click: down to the values of the
   * first branch, then the next ones.
   */
  openWhatFits(): void {
    this.opened.clear();
    let rows = this.tree.root.children.size;
    const open = (parent: TopicNode): void => {
      for (const node of [...parent.children.values()].sort((left, right) => collator.compare(left.name, right.name))) {
        // The only way down is opened however wide it is below.
        const isOnlyWay = parent.children.size === 1;
        if (node.children.size === 0 || (rows + node.children.size > TREE_AUTO_ROWS && !isOnlyWay)) continue;
        rows += node.children.size;
        this.opened.add(node.path);
        open(node);
      }
    };
    open(this.tree.root);
    this.isDirty = true;
  }

  /** All rows in order. Sorting by what moves is done again at most once a second. */
  list(now_ms: number): readonly TopicNode[] {
    const isMoving = this.sort !== "name" && now_ms - this.madeAt_ms >= RESORT_MS;
    if (this.isDirty || isMoving || this.shape !== this.tree.shape) {
      this.rows = [];
      this.collect(this.tree.root, now_ms);
      this.isDirty = false;
      this.shape = this.tree.shape;
      this.madeAt_ms = now_ms;
    }
    return this.rows;
  }

  private collect(parent: TopicNode, now_ms: number): void {
    let position = 0;
    for (const node of this.ordered(parent, now_ms)) {
      position += 1;
      node.position = position;
      this.rows.push(node);
      if (node.children.size && this.isOpen(node)) this.collect(node, now_ms);
    }
  }

  private ordered(parent: TopicNode, now_ms: number): TopicNode[] {
    const nodes = [...parent.children.values()];
    const byName = (left: TopicNode, right: TopicNode): number => collator.compare(left.name, right.name);
    switch (this.sort) {
      case "name":
        return nodes.sort(byName);
      case "rate": {
        const rates = new Map(nodes.map((node) => [node, node.rate(now_ms)]));
        return nodes.sort((left, right) => (rates.get(right) || 0) - (rates.get(left) || 0) || byName(left, right));
      }
      case "bytes":
        return nodes.sort((left, right) => right.bytes - left.bytes || byName(left, right));
      case "newest":
        return nodes.sort((left, right) => right.lastTime_ms - left.lastTime_ms || byName(left, right));
      case "silent":
        return nodes.sort((left, right) => left.lastTime_ms - right.lastTime_ms || byName(left, right));
    }
  }
}
