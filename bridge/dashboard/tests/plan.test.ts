import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { FILTERS_MAX, REQUEST_CHARS_MAX } from "../src/app/limits";
import { filterFault, planOf, splitTerms } from "../src/stream/plan";

describe("the filter bar", () => {
  test("terms go where they are understood", () => {
    expect(planOf(splitTerms('sensors/# client:p7 temp "hall 2"'))).toEqual({
      topicFilters: ["sensors/#"],
      words: ["temp", "hall 2"],
      clientIds: ["p7"],
      faults: [],
    });
  });

  test("without a topic filter everything is asked for", () => {
    expect(planOf(["temp"]).topicFilters).toEqual(["#"]);
  });

  test.each([
    ["a/#", null],
    ["+/b", null],
    ["#", null],
    ["a/b#", "# must be a level of its own"],
    ["#/a", "# can only be the last level"],
    ["a+/b", "+ must be a level of its own"],
  ])("%s", (topicFilter, fault) => {
    if (fault === null) expect(filterFault(topicFilter)).toBeNull();
    else expect(filterFault(topicFilter)).toContain(fault);
  });

  test("a request stays short whatever is typed", () => {
    fc.assert(
      fc.property(fc.array(fc.string({ minLength: 1, maxLength: 2000 }).map((text) => `a/${text.replace(/[+#"\s]/g, "x")}`), { maxLength: 60 }), (terms) => {
        const plan = planOf(terms);
        const chars = plan.topicFilters.reduce((sum, topicFilter) => sum + encodeURIComponent(topicFilter).length + 7, 200);
        expect(plan.topicFilters.length).toBeLessThanOrEqual(FILTERS_MAX);
        expect(chars).toBeLessThanOrEqual(REQUEST_CHARS_MAX);
      }),
    );
  });
});
