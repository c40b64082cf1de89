import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { DeviceInfo, PresenceChange } from "../src/api/types";
import { formatPath, formatSearch, parseAddress } from "../src/app/router";
import { laneOf, missingOf, missingWords } from "../src/time/lane";
import { changeSign, changeWords, costOf, hostOf, isFlapping, outWords, perSecond, protocolWords, reasonWords, sessionWords, sinceWords, stateOf } from "../src/views/device-words";
import { START_MS } from "./records";

const at = (second: number): string => new Date(START_MS + 1000 * second).toISOString();
const ms = (second: number): number => START_MS + 1000 * second;

function change(seq: number, second: number, online: boolean, session: boolean, reason: string, by = "device"): PresenceChange {
  return { client_id: "p8", online, session, seq, time: at(second), reason, by };
}

const DEVICE: DeviceInfo = {
  client_id: "p8",
  online: false,
  since: at(0),
  last_seen: at(0),
  address: "10.0.0.8:51244",
  transport: "tcp",
  protocol: "3.1.1",
  keep_alive_s: 60,
  session: { clean: false, expiry_s: 604_800, queued: 12 },
  subscriptions: [{ filter: "a/#", qos: 1 }],
  counters: { messages_in: 0, messages_out: 0, bytes_in: 0, bytes_out: 0 },
  connects_10min: 14,
};

describe("the lane of a connection", () => {
  const CHANGES = [
    change(1, 10, true, true, "connected"),
    change(2, 20, true, true, "taken_over"),
    change(3, 40, false, true, "keep_alive_timeout", "network"),
    change(4, 60, false, false, "session_expired", "server"),
    change(5, 80, true, true, "connected"),
  ];

  test("a take-over is a tick and no break", () => {
    const lane = laneOf(CHANGES, ms(0), ms(100));
    expect(lane.stretches.map(({ from_ms, to_ms, state }) => [(from_ms - START_MS) / 1000, (to_ms - START_MS) / 1000, state])).toEqual([
      [0, 10, "unknown"],
      [10, 40, "online"],
      [40, 60, "session"],
      [60, 80, "gone"],
      [80, 100, "online"],
    ]);
    expect(lane.takeOvers).toEqual([ms(20)]);
  });

  test("it is cut to the window, whatever came before it", () => {
    const lane = laneOf(CHANGES, ms(30), ms(50));
    expect(lane.stretches.map(({ state }) => state)).toEqual(["online", "session"]);
    expect(lane.takeOvers).toEqual([]);
  });

  test("any course covers the window once, without holes", () => {
    const course = fc.array(fc.record({ second: fc.integer({ min: 0, max: 100 }), online: fc.boolean(), session: fc.boolean() }), { maxLength: 20 });
    fc.assert(
      fc.property(course, fc.integer({ min: 0, max: 50 }), fc.integer({ min: 51, max: 120 }), (steps, from, to) => {
        const ordered = [...steps].sort((one, other) => one.second - other.second);
        const { stretches } = laneOf(
          ordered.map((step, index) => change(index + 1, step.second, step.online, step.session, "x")),
          ms(from),
          ms(to),
        );
        expect(stretches[0]?.from_ms).toBe(ms(from));
        expect(stretches[stretches.length - 1]?.to_ms).toBe(ms(to));
        for (const [index, stretch] of stretches.entries()) if (index) expect(stretch.from_ms).toBe(stretches[index - 1]?.to_ms);
      }),
    );
  });

  test("numbers that were left out are said; one that begins anew has lost nothing", () => {
    const jumps = [change(3, 0, true, true, "connected"), change(6, 1, false, false, "x"), change(1, 2, true, true, "connected"), change(2, 3, false, false, "x")];
    expect(missingOf(jumps)).toEqual([{ at_ms: ms(1), seq: 6, count: 2 }]);
    expect([missingWords(1), missingWords(2)]).toEqual(["1 change is missing", "2 changes are missing"]);
  });
});

describe("a device in words", () => {
  test("offline is not the same with and without a session", () => {
    expect([stateOf(DEVICE), stateOf({ ...DEVICE, session: null }), stateOf({ ...DEVICE, online: true })]).toEqual(["session", "gone", "online"]);
  });

  test("reasons say who, and the code behind it", () => {
    expect(changeWords(change(3, 0, false, true, "keep_alive_timeout", "network"), 60)).toBe("by network: silent for 90 s (keep alive)");
    expect(changeWords(change(3, 0, false, true, "packet_too_large", "server"))).toBe("by server: packet too large (0x95)");
    expect(changeWords(change(1, 0, true, true, "taken_over"))).toBe("taken over by a new connection");
    expect(reasonWords("of_a_later_server")).toBe("of a later server");
    expect(["taken_over", "connected"].map((reason) => changeSign(change(1, 0, true, true, reason)))).toEqual(["↷", "●"]);
    expect(["connection_lost", "session_expired"].map((reason) => changeSign(change(1, 0, false, false, reason)))).toEqual(["✕", "○"]);
  });

  test("what is not known is a dash", () => {
    expect([outWords({ ...DEVICE, online: true }, null), hostOf(null), protocolWords({ ...DEVICE, protocol: null, transport: null })]).toEqual(["–", "–", "–"]);
    expect(perSecond(undefined, 5, 1000)).toBeNull();
    expect(perSecond(9, 5, 1000)).toBeNull();
    expect(perSecond(5, 9, 2000)).toBe(2);
  });

  test("addresses, times, sessions", () => {
    expect([hostOf("10.0.0.8:51244"), hostOf("[::1]:51244")]).toEqual(["10.0.0.8", "[::1]"]);
    expect(protocolWords({ ...DEVICE, protocol: "5.0", transport: "websocket" })).toBe("5.0, WebSocket");
    expect([sinceWords(DEVICE, ms(180)), sinceWords({ ...DEVICE, online: true }, ms(180))]).toEqual(["3 min ago", "3 min"]);
    expect(outWords(DEVICE, null)).toBe("12 queued");
    expect(sessionWords(DEVICE)).toBe("kept for 7 d after it has gone");
    expect([isFlapping(DEVICE), isFlapping({ ...DEVICE, connects_10min: 4 })]).toEqual([true, false]);
  });

  test("a command names what will be lost", () => {
    expect(costOf(DEVICE, "session")).toBe("The session of p8 is forgotten: 1 subscription and 12 queued messages will be lost.");
    expect(costOf({ ...DEVICE, online: true }, "connection")).toContain("Its session stays.");
  });

  test("its page is addressed by id", () => {
    const address = parseAddress("/device", "?id=hall/7%23");
    expect(address).toMatchObject({ view: "device", name: "hall/7#" });
    expect(formatPath("device", "/devices") + formatSearch(address, "")).toBe("/device?id=hall/7%23");
    expect(formatSearch({ ...address, view: "stream" }, "?id=hall/7%23")).toBe("?name=hall/7%23");
  });
});
