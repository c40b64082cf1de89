/** Devices in words: state, reasons with who is behind them, what a command costs. "offline" only where presence says so. Pure. */
import type { DeviceInfo, PresenceChange } from "../api/types";
import { age, bytes, grouped, rate, span } from "../time/format";

export const UNKNOWN = "–";
/** So many connects in ten minutes are no accident. */
export const FLAPPING_CONNECTS = 5;

export type DeviceState = "online" | "session" | "gone";

export const STATES: readonly DeviceState[] = ["online", "session", "gone"];
export const STATE_WORDS: Record<DeviceState, string> = { online: "online", session: "session", gone: "offline" };
export const STATE_SIGNS: Record<DeviceState, string> = { online: "●", session: "◐", gone: "○" };
export const STATE_HELP: Record<DeviceState, string> = {
  online: "connected",
  session: "offline; its session is kept, and messages are queued for it",
  gone: "offline, without a session",
};

export function stateOf(device: { online: boolean; session: unknown }): DeviceState {
  if (device.online) return "online";
  return device.session ? "session" : "gone";
}

const REASONS: Record<string, string> = {
  connected: "connected",
  taken_over: "taken over by a new connection",
  client_disconnected: "said goodbye",
  connection_lost: "closed without goodbye",
  keep_alive_timeout: "silent for 1.5 × its keep alive",
  malformed_packet: "sent what is no MQTT (0x81)",
  protocol_error: "broke the protocol (0x82)",
  packet_too_large: "packet too large (0x95)",
  receive_maximum_exceeded: "too many unacknowledged messages (0x93)",
  refused: "its answer was larger than it takes",
  internal_error: "an error of the server (0x83)",
  server_shutdown: "the server was stopped (0x8B)",
  server_restart: "the server restarted",
  session_expired: "its session expired",
  closed_by_admin: "closed by an administrator (0x98)",
  session_forgotten: "its session was forgotten by an administrator",
};

/** "silent for 90 s (keep alive)": with the keep alive where it is known. */
export function reasonWords(reason: string, keepAlive_s = 0): string {
  if (reason === "keep_alive_timeout" && keepAlive_s > 0) return `silent for ${grouped(Math.ceil(1.5 * keepAlive_s))} s (keep alive)`;
  return REASONS[reason] ?? reason.replaceAll("_", " ");
}

/** "by network: closed without goodbye"; what a device does by itself needs no "by". */
export function changeWords(change: PresenceChange, keepAlive_s = 0): string {
  const words = reasonWords(change.reason, keepAlive_s);
  return change.online ? words : `by ${change.by}: ${words}`;
}

/** The sign of a change on the lane and in the list. */
export function changeSign(change: PresenceChange): string {
  if (change.reason === "taken_over") return "↷";
  if (change.online) return "●";
  return change.reason === "session_expired" || change.reason === "session_forgotten" ? "○" : "✕";
}

/** "5.0, TCP". */
export function protocolWords(device: DeviceInfo): string {
  const transport = device.transport === "websocket" ? "WebSocket" : (device.transport ?? "").toUpperCase();
  return [device.protocol, transport].filter(Boolean).join(", ") || UNKNOWN;
}

/** The host of "10.0.0.7:51244", "[::1]:51244". */
export function hostOf(address: string | null): string {
  return address?.replace(/:\d+$/, "") || UNKNOWN;
}

export function isFlapping(device: DeviceInfo): boolean {
  return (device.connects_10min ?? 0) >= FLAPPING_CONNECTS;
}

/** "2 d" for one that is here, "3 min ago" for one that has gone. */
export function sinceWords(device: DeviceInfo, now_ms: number): string {
  const elapsed = age(now_ms - Date.parse(device.since));
  return device.online ? elapsed : `${elapsed} ago`;
}

/** "12 queued", "4 /s", "–". `perSecond`: null while it is not known. */
export function outWords(device: DeviceInfo, perSecond: number | null): string {
  if (!device.online) return device.session ? `${grouped(device.session.queued)} queued` : UNKNOWN;
  return perSecond === null ? UNKNOWN : rate(perSecond);
}

export function sessionWords(device: DeviceInfo): string {
  if (!device.session) return "none";
  if (device.session.clean) return "ends with the connection";
  return `kept for ${span(device.session.expiry_s)} after it has gone`;
}

export function countedWords(messages: number, size: number): string {
  return `${grouped(messages)} messages, ${bytes(size)} with all around them`;
}

/** What the command takes away, before it does. */
export function costOf(device: DeviceInfo, what: "connection" | "session"): string {
  if (what === "connection") {
    const after = device.session?.clean ? "Its session ends with it." : "Its session stays.";
    return `The connection of ${device.client_id} is closed. ${after} Most devices connect again by themselves.`;
  }
  const lost = [
    device.online ? "its connection" : "",
    `${grouped(device.subscriptions.length)} ${device.subscriptions.length === 1 ? "subscription" : "subscriptions"}`,
    device.session?.queued ? `${grouped(device.session.queued)} queued ${device.session.queued === 1 ? "message" : "messages"}` : "",
  ].filter(Boolean);
  return `The session of ${device.client_id} is forgotten: ${listed(lost)} will be lost.`;
}

function listed(parts: readonly string[]): string {
  return parts.length < 2 ? parts.join("") : `${parts.slice(0, -1).join(", ")} and ${parts[parts.length - 1]}`;
}

/** Messages a second since the figures before; null where there are none, or where a new connection began to count. */
export function perSecond(before: number | undefined, after: number, elapsed_ms: number): number | null {
  if (before === undefined || after < before || elapsed_ms <= 0) return null;
  return ((after - before) * 1000) / elapsed_ms;
}
