import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { formatPath, formatSearch, parseAddress, VIEWS, type Address } from "../src/app/router";
import { SORTS } from "../src/store/tree-view";
import { WINDOWS } from "../src/time/windows";
import { START_MS } from "./records";

const text = fc.string({ minLength: 1, maxLength: 12 });
const anyAddress: fc.Arbitrary<Address> = fc
  .record({
    view: fc.constantFrom(...VIEWS),
    name: fc.option(text, { nil: "" }),
    terms: fc.array(text, { maxLength: 4 }),
    branch: text,
    t: fc.constantFrom("", "-15m", "2026-11-22T03:12:07.250Z", "2026-11-22T04:12:07+01:00", String(START_MS)),
    x: fc.constantFrom("", "0.1", "1", "10", "60", "max", "2.5"),
    window_ms: fc.constantFrom(...WINDOWS.map((entry) => entry.ms)),
    sort: fc.constantFrom(...SORTS),
  })
  // A replay has a beginning.
  .map((address) => ({ ...address, x: address.t ? address.x : "", isWelcome: false }));

describe("the address", () => {
  test("holds all that was chosen and gives it back", () => {
    fc.assert(
      fc.property(anyAddress, fc.constantFrom("/", "/headrace/", "/streams", "/headrace/board"), (address, path) => {
        const [nextPath, search] = [formatPath(address.view, path), formatSearch(address, "?heartbeat_s=1&t=-1h&x=3")];
        expect(parseAddress(nextPath, search)).toEqual(address);
        expect(search).toContain("heartbeat_s=1");
      }),
    );
  });

  test("is what a person could have typed", () => {
    const address = parseAddress("/", "?f=sensors/%23&f=client:p7&b=sensors/p7&t=2026-11-22T03:12:07.250Z&w=1h&x=10&sort=rate");
    expect(address).toMatchObject({ terms: ["sensors/#", "client:p7"], branch: "sensors/p7", t: "2026-11-22T03:12:07.250Z", window_ms: 3_600_000, x: "10" });
    expect(formatSearch(address, "")).toBe("?f=sensors/%23&f=client:p7&b=sensors/p7&t=2026-11-22T03:12:07.250Z&x=10&w=1h&sort=rate");
  });

  test("defaults leave no trace", () => {
    expect(formatSearch(parseAddress("/", "?w=15m&sort=name&welcome"), "?w=15m&sort=name&welcome")).toBe("?welcome=");
  });

  test("what cannot be read is left out", () => {
    expect(parseAddress("/", "?t=noon&x=10&w=3y&sort=size")).toMatchObject({ t: "", x: "", window_ms: 900_000, sort: "name" });
    expect(parseAddress("/", "?t=-15m&x=fast")).toMatchObject({ t: "-15m", x: "" });
  });

  test("stays below a root path", () => {
    expect(formatPath("streams", "/headrace/")).toBe("/headrace/streams");
    expect(formatPath("live", "/headrace/streams")).toBe("/headrace/");
  });

  test("a link to a topic shows its branch", () => {
    expect(parseAddress("/topic", "?name=sensors/p7/temp").branch).toBe("sensors/p7/temp");
  });
});
