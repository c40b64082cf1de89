import { describe, expect, test } from "vitest";
import { TREE_AUTO_ROWS } from "../src/app/limits";
import { TopicTree } from "../src/store/topic-tree";
import { TreeView } from "../src/store/tree-view";
import { record, START_MS } from "./records";

function treeOf(topics: string[]): TopicTree {
  const tree = new TopicTree();
  topics.forEach((topic, index) => tree.take(record(topic, index, index), START_MS + index, 100, false));
  return tree;
}

describe("topic tree", () => {
  test("names are sorted as people count: p2 before p10", () => {
    const view = new TreeView(treeOf(["s/p10", "s/p2", "s/p1"]));
    view.openWhatFits();
    expect(view.list(START_MS).map((node) => node.path)).toEqual(["s", "s/p1", "s/p2", "s/p10"]);
  });

  test("empty levels are levels of their own", () => {
    const tree = treeOf(["/a", "a//b"]);
    expect(tree.branch("")?.children.size).toBe(1);
    expect(tree.branch("a/")?.children.has("b")).toBe(true);
    expect(tree.topics).toBe(2);
  });

  test("a topic may have topics below it", () => {
    const tree = treeOf(["a", "a/b"]);
    expect(tree.find("a")?.topics).toBe(2);
    expect(tree.find("a")?.latest?.record.topic).toBe("a");
  });

  test("opens what fits one screen, and the only way down always", () => {
    const wide = treeOf([...Array(200).keys()].map((index) => `plant/hall${index % 2}/p${index}`));
    const view = new TreeView(wide);
    view.openWhatFits();
    expect(view.list(START_MS).length).toBeLessThanOrEqual(TREE_AUTO_ROWS);
    expect(view.list(START_MS).map((node) => node.path)).toEqual(["plant", "plant/hall0", "plant/hall1"]);
  });

  test("what a person opened stays open", () => {
    const tree = treeOf(["a/b", "c/d"]);
    const view = new TreeView(tree);
    view.setOpen("a", true);
    view.openWhatFits();
    view.setOpen("c", false);
    expect(view.list(START_MS).map((node) => node.path)).toEqual(["a", "a/b", "c"]);
  });

  test("rates follow the messages and fade in silence", () => {
    const tree = new TopicTree();
    for (let index = 0; index < 600; index += 1) tree.take(record("a", index, index), START_MS + index * 100, 100, false);
    const end = START_MS + 60_000;
    expect(tree.root.rate(end)).toBeGreaterThan(9);
    expect(tree.root.rate(end)).toBeLessThan(11);
    expect(tree.root.rate(end + 120_000)).toBe(0);
  });

  test("a slow topic shows its interval instead of a flicker", () => {
    const tree = new TopicTree();
    for (let index = 0; index < 5; index += 1) tree.take(record("a", index, index), START_MS + index * 60_000, 100, false);
    expect(tree.find("a")?.rate(START_MS + 4 * 60_000 + 30_000)).toBeCloseTo(1 / 60);
  });

  test("a snapshot counts no message", () => {
    const tree = new TopicTree();
    tree.take(record("a", 1, 1), START_MS, 100, true);
    expect(tree.find("a")?.count).toBe(0);
    expect(tree.find("a")?.lastTime_ms).toBe(START_MS);
  });
});
