/** The shapes that the server sends, as its OpenAPI description has them; only what the page reads. */

export interface MessageProperties {
  content_type?: string;
  response_topic?: string;
  correlation_data?: string;
  message_expiry_interval?: number;
  payload_format_indicator?: number;
  user_properties?: [string, string][];
}

/** `data` of the events `message` and `snapshot`, and one entry of `records`. */
export interface RecordData {
  topic: string;
  payload: unknown;
  encoding: "json" | "text" | "base64";
  qos: number;
  retain: boolean;
  time: string;
  id: string;
  client_id: string;
  stream: string;
  epoch: string;
  partition: number;
  offset: number;
  properties?: MessageProperties;
}

export interface GapData {
  from: string | null;
  to: string | null;
  lost: number | null;
  reason: "retention" | "epoch" | "overflow" | "unknown";
}

export interface StreamInfo {
  name: string;
  storage: string;
  records: number;
}

export interface RecordsPage {
  records: RecordData[];
  cursor: string | null;
  complete: boolean;
}

export interface ListenInfo {
  kind: string;
  url: string;
  device_urls?: string[];
}

export interface SystemInfo {
  version: string;
  node?: string;
  time: string;
  listen: ListenInfo[];
  auth?: unknown;
  readers?: ReaderInfo[];
}

export interface ReaderInfo {
  filters: string[];
  policy: string;
  /** Events that a newer one of their topic replaced, since the reader connected. */
  conflated: number;
}
