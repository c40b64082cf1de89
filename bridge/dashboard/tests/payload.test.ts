import { describe, expect, test } from "vitest";
import { FieldProfile, plotted, type Kind } from "../src/payload/classify";
import { eachField, fieldName, type Scalar } from "../src/payload/fields";
import { changeText, payloadText, valueText } from "../src/payload/summary";
import { numberOfText, statedUnit, unitOfName } from "../src/payload/units";
import { START_MS } from "./records";

function kindOf(values: Scalar[]): Kind {
  const profile = new FieldProfile();
  values.forEach((value, index) => profile.take(value, START_MS + index));
  return profile.kind;
}

const rising = [...Array(30).keys()];

describe("kinds", () => {
  test.each<[string, Scalar[], Kind]>([
    ["numbers", [1.5, 2, 1], "number"],
    ["text that is a number with a unit", ["21.5 °C", "21 °C"], "number"],
    ["leading zeros are a text", ["007", "008"], "text"],
    ["whole numbers that never fall", rising, "counter"],
    ["few samples are no counter", rising.slice(0, 10), "number"],
    ["a counter that fell", [...rising, 3], "number"],
    ["true and false", [true, false], "boolean"],
    ["open and closed", ["open", "closed", "open"], "boolean"],
    ["few texts that come again", ["eco", "boost", "eco"], "enum"],
    ["a text seen once", ["hello"], "text"],
    ["a long text", ["x".repeat(40), "x".repeat(40)], "text"],
    ["ISO times", ["2026-11-22T03:12:07Z", "2026-11-22T03:12:08Z"], "time"],
    ["epoch seconds", [START_MS / 1000, START_MS / 1000 + 1], "time"],
    ["only null", [null, null], "empty"],
    ["numbers and texts", [1, "error"], "text"],
  ])("%s", (_name, values, kind) => {
    expect(kindOf(values)).toBe(kind);
  });

  test("beyond 2^53 nothing is plotted", () => {
    expect(plotted(2 ** 60)).toBeNaN();
    expect(plotted("21.5 °C")).toBe(21.5);
    expect(plotted("on")).toBeNaN();
  });

  test("only a value that changed is not constant", () => {
    const profile = new FieldProfile();
    profile.take(1, START_MS);
    profile.take(1, START_MS + 1);
    expect(profile.isConstant).toBe(true);
    profile.take(2, START_MS + 2);
    expect(profile.isConstant).toBe(false);
  });
});

describe("fields", () => {
  test("are named by JSON Pointer", () => {
    const seen: [string, Scalar][] = [];
    eachField({ "a/b": { "c~d": 1 }, e: [true, null] }, (pointer, value) => seen.push([pointer, value]));
    expect(seen).toEqual([
      ["/a~1b/c~0d", 1],
      ["/e/0", true],
      ["/e/1", null],
    ]);
    expect(fieldName("/a~1b/c~0d")).toBe("a/b.c~d");
  });

  test("are bounded in number and depth", () => {
    const wide = Object.fromEntries([...Array(200).keys()].map((index) => [`f${index}`, index]));
    let taken = 0;
    expect(eachField(wide, () => (taken += 1))).toBe(200);
    expect(taken).toBe(64);
    const deep = JSON.parse(`${'{"a":'.repeat(50)}1${"}".repeat(50)}`) as unknown;
    expect(eachField(deep, () => undefined)).toBe(0);
  });
});

describe("units and summaries", () => {
  test("units come from the name, the text, or a field beside it", () => {
    expect(unitOfName("temp_c")).toEqual({ label: "temp", unit: "°C" });
    expect(unitOfName("wind_ms")).toEqual({ label: "wind", unit: "m/s" });
    expect(unitOfName("delay_ms")).toEqual({ label: "delay", unit: "ms" });
    expect(unitOfName("door")).toEqual({ label: "door", unit: "" });
    expect(numberOfText("48 %")).toEqual({ value: 48, unit: "%" });
    expect(numberOfText("12 monkeys")).toBeNull();
    expect(statedUnit({ value: 3, unit: "bar" }, undefined)).toBe("bar");
    expect(statedUnit(3, { user_properties: [["unit", "V"]] })).toBe("V");
  });

  test.each<[unknown, string, string]>([
    [21.6, "json", "21.6"],
    [{ temp_c: 21.6, hum_pct: 48 }, "json", "temp 21.6 °C · hum 48 %"],
    [{ temp: 21.6 }, "json", "21.6"],
    ["open", "text", "open"],
    [[1, 2, 3, 4, 5, 6, 7, 8, 9, 10], "json", "10 values"],
    ["AAEC", "base64", "3 B binary  00 01 02"],
    ["<img src=x>", "text", "<img src=x>"],
    [null, "json", "null"],
    [null, "null", "no payload (tombstone)"],
  ])("%j (%s)", (payload, encoding, text) => {
    expect(valueText(payload, encoding)).toBe(text);
  });

  test("a change is said with its name and sign", () => {
    expect(changeText({ temp_c: 21.4, hum: 48 }, { temp_c: 21.6, hum: 48 })).toBe("temp +0.2");
    expect(changeText(5, 3)).toBe("−2");
    expect(changeText(undefined, 3)).toBe("");
  });

  test("a payload is shown as it came", () => {
    expect(payloadText({ a: [1] }, "json")).toBe('{"a":[1]}');
    expect(payloadText("a\nb", "text")).toBe("a\nb");
    expect(payloadText(null, "null")).toBe("no payload (tombstone)");
  });
});
