/** Who was refused, from the server's own events: a device that tries again and again is one line. Pure. */
import type { RecordData } from "../api/types";
import { grouped } from "../time/format";
import { hostOf } from "./device-words";

export interface Refusal {
  key: string;
  /** Of the latest of them. */
  time_ms: number;
  count: number;
  host: string;
  /** Empty: it did not come so far as to say. */
  clientId: string;
  words: string;
}

const REASONS: Record<string, string> = {
  bad_user_name_or_password: "wrong user name or password",
  not_authorized: "not allowed",
  client_identifier_not_valid: "its client id is not taken",
  unsupported_protocol_version: "a version of MQTT that is not spoken here",
  bad_authentication_method: "a way to sign in that is not configured",
  quota_exceeded: "the server is full or late",
  connection_rate_exceeded: "too many connects a second",
  malformed_packet: "sent what is no MQTT",
  protocol_error: "broke the protocol",
  spoke_tls: "spoke TLS to a port without it",
  spoke_http: "spoke HTTP to a port for MQTT",
};

export function refusalWords(reason: string): string {
  return REASONS[reason] ?? reason.replaceAll("_", " ");
}

/** `records` of `$server/connect_refused`, newest first, as the lines are. */
export function refusalsOf(records: readonly RecordData[]): { refusals: Refusal[]; leftOut: number } {
  const refusals = new Map<string, Refusal>();
  let leftOut = 0;
  for (const { payload, time } of records) {
    const { reason, client_id, address, left_out } = payload as Record<string, unknown>;
    if (typeof left_out === "number") leftOut += left_out;
    if (typeof reason !== "string") continue;
    const [host, clientId] = [hostOf(typeof address === "string" ? address : null), typeof client_id === "string" ? client_id : ""];
    const key = [host, clientId, reason].join("\n");
    const known = refusals.get(key);
    if (known) known.count += 1;
    else refusals.set(key, { key, time_ms: Date.parse(time), count: 1, host, clientId, words: refusalWords(reason) });
  }
  return { refusals: [...refusals.values()], leftOut };
}

/** "wrong user name or password, 12 times". */
export function countedRefusal(refusal: Refusal): string {
  return refusal.count > 1 ? `${refusal.words}, ${grouped(refusal.count)} times` : refusal.words;
}
