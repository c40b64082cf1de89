import { describe, expect, test } from "vitest";
import { Profiles } from "../src/store/profiles";
import { fieldsOfBranch, fieldsUnasked, idOf } from "../src/store/selection";
import { TopicTree } from "../src/store/topic-tree";
import { record, START_MS } from "./records";

function profilesOf(topics: Record<string, unknown[]>): { profiles: Profiles; tree: TopicTree } {
  const profiles = new Profiles();
  const tree = new TopicTree();
  for (const [topic, payloads] of Object.entries(topics)) {
    payloads.forEach((payload, index) => {
      profiles.touch(topic).take(record(topic, index, payload), START_MS + index);
      tree.take(record(topic, index, payload), START_MS + index, 100, false);
    });
  }
  return { profiles, tree };
}

describe("fields that nobody asked for", () => {
  test("come in turn from each branch at the top, each name first once", () => {
    const rooms = Object.fromEntries([1, 2, 3].map((room) => [`building/${room}`, [{ temp: 1, hum: 1 }, { temp: 2, hum: 2 }]]));
    const { profiles } = profilesOf({ ...rooms, "weather/seattle": [{ rain: 1 }, { rain: 2 }] });
    const { fields } = fieldsUnasked(profiles, []);
    expect(fields).toHaveLength(6);
    expect(fields.slice(0, 3).map((field) => field.pointer).sort()).toEqual(expect.arrayContaining(["/rain"]));
    expect(new Set(fields.slice(0, 3).map((field) => field.pointer)).size).toBe(3);
  });

  test("are not constant while there are others", () => {
    const { profiles } = profilesOf({ a: [{ still: 1, moves: 1 }, { still: 1, moves: 2 }] });
    expect(fieldsUnasked(profiles, []).fields[0]?.pointer).toBe("/moves");
  });

  test("stay once they are shown", () => {
    const { profiles } = profilesOf({ a: [{ one: 1 }, { one: 2 }] });
    const before = fieldsUnasked(profiles, []).fields;
    for (let index = 0; index < 9; index += 1) profiles.touch("b").take(record("b", index, { [`f${index % 8}`]: index }), START_MS + index);
    expect(fieldsUnasked(profiles, before).fields.map(idOf)[0]).toBe("a /one");
  });
});

test("a branch shows its fields in the order of its topics, drawn ones first", () => {
  const { profiles, tree } = profilesOf({ "s/p10": [{ temp: 1 }], "s/p2": [{ name: "a long enough text to be no state at all", temp: 2 }] });
  const branch = tree.branch("s");
  expect(branch && fieldsOfBranch(branch, profiles).fields.map(idOf)).toEqual(["s/p2 /temp", "s/p10 /temp", "s/p2 /name"]);
});
