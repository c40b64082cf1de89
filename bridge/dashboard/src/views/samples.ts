/** The copy-paste samples of the first screen, filled with the address that devices can use. Pure. */
import arduino from "../../../../docs/samples/esp32_arduino.txt?raw";
import micropython from "../../../../docs/samples/esp32_micropython.txt?raw";
import python from "../../../../docs/samples/python.txt?raw";
import shell from "../../../../docs/samples/shell.txt?raw";
import curl from "../../../../docs/samples/curl.txt?raw";
import type { ListenInfo, SystemInfo } from "../api/types";

export interface DeviceAddress {
  host: string;
  port: number;
  url: string;
  isLoopback: boolean;
}

export interface Place {
  address: DeviceAddress;
  /** The page's own origin, for the HTTP sample. */
  origin: string;
  needsLogin: boolean;
}

export const SAMPLES = [
  { id: "shell", name: "Shell", text: shell },
  { id: "python", name: "Python", text: python },
  { id: "arduino", name: "ESP32 Arduino", text: arduino },
  { id: "micropython", name: "MicroPython", text: micropython },
  { id: "curl", name: "curl", text: curl },
] as const;

export type SampleId = (typeof SAMPLES)[number]["id"];

/** How each sample signs in; secrets only as names of variables. */
const LOGIN: Record<SampleId, string> = {
  shell: '-u "$MQTT_USER" -P "$MQTT_PASSWORD" ',
  python: 'client.username_pw_set("USER", "PASSWORD")\n',
  arduino: "",
  micropython: ', user="USER", password="PASSWORD"',
  curl: '-H "Authorization: Bearer $HEADRACE_TOKEN" ',
};

export function fillSample(id: SampleId, place: Place): string {
  const sample = SAMPLES.find((entry) => entry.id === id);
  const values: Record<string, string> = {
    host: place.address.host,
    port: String(place.address.port),
    origin: place.origin,
    login: place.needsLogin ? LOGIN[id] : "",
    user: place.needsLogin ? "FILL IN" : "",
    password: place.needsLogin ? "FILL IN" : "",
  };
  return (sample?.text ?? "").replace(/\{(host|port|origin|login|user|password)\}/g, (_all, name: string) => values[name] ?? "").trimEnd();
}

export function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || host.startsWith("127.");
}

/**
 * Addresses of plain MQTT that devices can use, best first: the page's own host unless that is loopback, then what the
 * server says. Empty when the server does not listen for MQTT over TCP.
 */
export function deviceAddresses(system: SystemInfo, pageHost: string): DeviceAddress[] {
  const listeners = system.listen.filter((entry) => entry.kind === "mqtt" || entry.url.startsWith("mqtt://"));
  const found: DeviceAddress[] = [];
  for (const listener of listeners) {
    for (const url of [...(listener.device_urls ?? []), listener.url]) {
      const address = parse(url);
      if (address && !found.some((other) => other.url === address.url)) found.push(address);
    }
  }
  const rank = (address: DeviceAddress): number => (address.host === pageHost && !address.isLoopback ? 0 : address.isLoopback ? 2 : 1);
  return found.sort((left, right) => rank(left) - rank(right));
}

/** Whether any device outside of this computer can connect. */
export function isReachable(listen: readonly ListenInfo[]): boolean {
  return listen
    .filter((entry) => entry.kind.startsWith("mqtt"))
    .flatMap((entry) => entry.device_urls ?? [entry.url])
    .some((url) => {
      const address = parse(url);
      return address !== null && !address.isLoopback;
    });
}

function parse(url: string): DeviceAddress | null {
  const match = /^[a-z+]+:\/\/(\[[^\]]+\]|[^:/]+):(\d+)/.exec(url);
  if (!match) return null;
  const host = (match[1] ?? "").replace(/^\[|\]$/g, "");
  if (host === "0.0.0.0" || host === "::") return null; // every address is none that a device could type
  return { host, port: Number(match[2]), url, isLoopback: isLoopback(host) };
}

/** Whether devices need a user and a password, as far as the server's `auth` says. */
export function needsLogin(auth: unknown): boolean {
  const mode = typeof auth === "string" ? auth : ((auth as { mode?: string } | undefined)?.mode ?? "");
  return mode !== "" && mode !== "none" && mode !== "anonymous";
}
