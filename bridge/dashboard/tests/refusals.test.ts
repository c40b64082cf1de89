import { describe, expect, test } from "vitest";
import type { RecordData } from "../src/api/types";
import { countedRefusal, refusalsOf, refusalWords } from "../src/views/refusals";
import { START_MS } from "./records";

const told = (second: number, payload: Record<string, unknown>): RecordData =>
  ({ topic: "$server/connect_refused", payload, time: new Date(START_MS + 1000 * second).toISOString() }) as RecordData;

const REFUSED = { kind: "connect_refused", reason: "bad_user_name_or_password", client_id: "esp32-1", address: "192.168.1.47:50121" };

describe("who was refused", () => {
  test("a device that tries again is one line, with its latest time", () => {
    const { refusals } = refusalsOf([
      told(30, { ...REFUSED, address: "192.168.1.47:50199" }),
      told(20, { kind: "connect_refused", reason: "spoke_tls", client_id: null, address: "[fe80::1]:4000" }),
      told(10, REFUSED),
    ]);
    expect(refusals.map(({ time_ms, count, host, clientId, words }) => [(time_ms - START_MS) / 1000, count, host, clientId, words])).toEqual([
      [30, 2, "192.168.1.47", "esp32-1", "wrong user name or password"],
      [20, 1, "[fe80::1]", "", "spoke TLS to a port without it"],
    ]);
    expect(refusals.map(countedRefusal)).toEqual(["wrong user name or password, 2 times", "spoke TLS to a port without it"]);
  });

  test("another reason or another client id is another line", () => {
    const { refusals } = refusalsOf([told(2, REFUSED), told(1, { ...REFUSED, client_id: "esp32-2" }), told(0, { ...REFUSED, reason: "not_authorized" })]);
    expect(refusals.map((refusal) => refusal.count)).toEqual([1, 1, 1]);
  });

  test("what the server left out is said", () => {
    expect(refusalsOf([told(2, { kind: "connect_refused", left_out: 40 }), told(1, { ...REFUSED, left_out: 2 })])).toMatchObject({ leftOut: 42, refusals: [{ count: 1 }] });
  });

  test("a reason of a later server is its own words", () => {
    expect(refusalWords("of_a_later_server")).toBe("of a later server");
  });
});
