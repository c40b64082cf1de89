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
  /** "null": there is no payload at all, as in a Kafka record that says that its key is gone. */
  encoding: "json" | "text" | "base64" | "null";
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

export interface PartitionInfo {
  partition: number;
  first_offset: number;
  next_offset: number;
}

/** Fields with a question mark come from servers that know them; the page shows "–" without. */
export interface StreamInfo {
  name: string;
  storage: string;
  topics?: string[];
  ack?: string;
  epoch?: string;
  records: number;
  bytes?: number | null;
  oldest?: string | null;
  newest?: string | null;
  retention?: { age_s?: number | null; bytes?: number | null } | null;
  partitions?: PartitionInfo[];
  /** Records and bytes a second. */
  rate?: number | null;
  bytes_rate?: number | null;
  commit_ms?: { p50: number | null; p99: number | null } | null;
  /** Records committed in Kafka that the live side has not read yet. */
  lag?: number | null;
  /** Why the log takes nothing at the moment. */
  failure?: string | null;
  kafka?: StreamKafka | null;
  spool?: StreamSpool | null;
  dead_letters?: { records: number; newest?: string | null } | null;
}

export interface StreamKafka {
  topic?: string;
  state: "up" | "down" | "starting" | "gone";
  since?: string | null;
  brokers?: number | null;
  partitions?: number | null;
  replication?: number | null;
  /** Where the topic is not as the configuration says. */
  mismatch?: string[];
  error?: string | null;
  /** Records of other producers that have no MQTT topic. */
  left_out?: number | null;
}

export interface StreamSpool {
  epoch?: string;
  state: "empty" | "spooling" | "draining";
  records: number;
  bytes: number;
  bytes_max?: number | null;
  oldest?: string | null;
  rate?: number | null;
  full_in_s?: number | null;
}

export interface RecordsPage {
  records: RecordData[];
  cursor: string | null;
  complete: boolean;
}

/** One entry of `topics`: a record with what is known of its topic. */
export interface TopicState extends RecordData {
  age_ms?: number;
  count?: number;
  interval_s?: number | null;
}

export interface TopicsPage {
  topics: TopicState[];
  next: string | null;
  /** false: topics that were silent since `scanned_to` may be missing. */
  complete?: boolean;
  scanned_to?: string | null;
}

export interface HistogramAnswer {
  from: string;
  to: string;
  buckets: { time: string; count: number }[];
  gaps: { from: string | null; to: string | null; reason: GapData["reason"] }[];
  oldest: string | null;
  complete: boolean;
  scanned_to?: string | null;
}

export interface SeriesAnswer {
  time: string[];
  min: number[];
  max: number[];
  last: number[];
  count: number[];
  complete: boolean;
  scanned_to?: string | null;
}

/** The payload of `$presence/{client_id}`, and one entry of a timeline. */
export interface PresenceChange {
  client_id: string;
  online: boolean;
  session: boolean;
  seq: number;
  time: string;
  reason: string;
  by: string;
}

export interface DeviceInfo {
  client_id: string;
  online: boolean;
  since: string;
  last_seen: string;
  address: string | null;
  transport: string | null;
  protocol: string | null;
  keep_alive_s: number;
  session: { clean: boolean; expiry_s: number; queued: number } | null;
  subscriptions: { filter: string; qos: number }[];
  counters: { messages_in: number; messages_out: number; bytes_in: number; bytes_out: number };
  reason?: string;
  by?: string;
  connects_10min?: number;
}

export interface DevicesPage {
  devices: DeviceInfo[];
  next: string | null;
  counts?: { online: number; session: number; gone: number };
}

export interface ChangesPage {
  changes: PresenceChange[];
  next: string | null;
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
  kafka?: { state: StreamKafka["state"]; since?: string | null; bootstrap_servers?: string; error?: string | null } | null;
  spool?: { records: number; bytes: number; bytes_max?: number | null; state: StreamSpool["state"] } | null;
}

export interface ReaderInfo {
  filters: string[];
  policy: string;
  /** Events that a newer one of their topic replaced, since the reader connected. */
  conflated: number;
}
