import { describe, expect, test } from "vitest";
import { deviceAddresses, fillSample, isReachable, needsLogin, SAMPLES, type DeviceAddress } from "../src/views/samples";
import type { SystemInfo } from "../src/api/types";

const system = (url: string, device_urls: string[]): SystemInfo => ({
  version: "0",
  time: "2026-11-22T03:12:07Z",
  listen: [
    { kind: "mqtt", url, device_urls },
    { kind: "dashboard", url: "http://127.0.0.1:8000/" },
  ],
});
const address: DeviceAddress = { host: "192.168.1.20", port: 1884, url: "mqtt://192.168.1.20:1884", isLoopback: false };

describe("the first screen's samples", () => {
  test.each(SAMPLES.map((sample) => sample.id))("%s names the server and leaves no place unfilled", (id) => {
    for (const isLogin of [true, false]) {
      const text = fillSample(id, { address, origin: "http://192.168.1.20:8000", needsLogin: isLogin });
      expect(text).not.toMatch(/\{(?:host|port|login|user|password|origin)\}/);
      expect(text).toContain("192.168.1.20");
      if (id !== "curl") expect(text).toContain("1884");
    }
  });

  test("the Arduino sketch has two places to fill in, both marked", () => {
    const text = fillSample("arduino", { address, origin: "", needsLogin: false });
    expect(text.match(/FILL IN/g)).toHaveLength(2);
    expect(text).toContain('HOST = "192.168.1.20"');
  });

  test("the page's own host comes first, loopback last", () => {
    const info = system("mqtt://127.0.0.1:1883", ["mqtt://10.0.0.5:1883", "mqtt://192.168.1.20:1883"]);
    expect(deviceAddresses(info, "192.168.1.20").map((entry) => entry.host)).toEqual(["192.168.1.20", "10.0.0.5", "127.0.0.1"]);
    expect(deviceAddresses(info, "localhost")[0]?.host).toBe("10.0.0.5");
  });

  test("the server says whether devices can reach it", () => {
    expect(isReachable(system("mqtt://127.0.0.1:1883", []).listen)).toBe(false);
    expect(isReachable(system("mqtt://127.0.0.1:1883", ["mqtt://127.0.0.1:1883"]).listen)).toBe(false);
    expect(isReachable(system("mqtt://0.0.0.0:1883", ["mqtt://10.0.0.5:1883"]).listen)).toBe(true);
  });

  test("a password is asked for where the server wants one", () => {
    expect(needsLogin("anonymous")).toBe(false);
    expect(needsLogin({ mode: "password" })).toBe(true);
    expect(needsLogin(undefined)).toBe(false);
  });
});
