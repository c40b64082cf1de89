/**
 * Requests to the server's API, for page and worker. Addresses are relative to the page, so that a root_path works.
 * Errors become ApiError with the sentence of the server's problem+json.
 */
import type { ChangesPage, DeviceInfo, DevicesPage, HistogramAnswer, RecordsPage, SeriesAnswer, StreamInfo, SystemInfo, TopicsPage } from "./types";

export class ApiError extends Error {
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message);
    this.name = "ApiError";
  }

  /** This server does not have what was asked for, and says so. */
  get isNotAvailable(): boolean {
    return this.status === 501 || (this.status === 400 && /not available/i.test(this.message)) || (this.status === 404 && this.message.startsWith("There is nothing at"));
  }
}

export const NOT_AVAILABLE = "not available on this server";

/** What a failed request says on the screen. */
export function faultOf(error: unknown): string {
  if (error instanceof ApiError && error.isNotAvailable) return NOT_AVAILABLE;
  return error instanceof Error ? error.message : String(error);
}

/** The server's own sentence about a refused request, or what the status means. */
export async function problemText(response: Response): Promise<string> {
  const body = await response.text();
  try {
    const problem = JSON.parse(body) as { type?: string; title?: string; detail?: string };
    const text = problem.detail ?? problem.title;
    if (/not.available/i.test(`${problem.type} ${problem.title}`) && !/not available/i.test(text ?? "")) return `${text ?? ""} (${NOT_AVAILABLE})`.trim();
    if (text) return text;
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error; // not JSON: the status line has to do
  }
  return `the server answered ${response.status} ${response.statusText}`.trim();
}

export class ApiClient {
  /** `base` is the address of `api/v1/`, with the closing slash. */
  constructor(private readonly base: string) {}

  url(path: string, query: [string, string][] = []): string {
    const text = query.map(([name, value]) => `${name}=${encodeURIComponent(value)}`).join("&");
    return this.base + path + (text ? `?${text}` : "");
  }

  system(signal?: AbortSignal): Promise<SystemInfo> {
    return this.get("system", [], signal);
  }

  async streams(signal?: AbortSignal): Promise<StreamInfo[]> {
    return (await this.get<{ streams: StreamInfo[] }>("streams", [], signal)).streams;
  }

  /** Newest records first; `cursor` of the answer leads to older ones. */
  latestRecords(
    stream: string,
    topicFilters: readonly string[],
    limit: number,
    more: { from?: string; to?: string; cursor?: string; clientId?: string; signal?: AbortSignal } = {},
  ): Promise<RecordsPage> {
    const query: [string, string][] = [
      ...topicFilters.map((topicFilter): [string, string] => ["topic", topicFilter]),
      ["order", "desc"],
      ["limit", String(limit)],
      ["format", "json"],
    ];
    if (more.from) query.push(["from", more.from]);
    if (more.to) query.push(["to", more.to]);
    if (more.clientId) query.push(["client_id", more.clientId]);
    if (more.cursor) query.push(["cursor", more.cursor]);
    return this.get(`streams/${encodeURIComponent(stream)}/records`, query, more.signal);
  }

  /** The oldest records from a time on. */
  nextRecords(stream: string, topicFilters: readonly string[], from: string, limit: number): Promise<RecordsPage> {
    const query = topicFilters.map((topicFilter): [string, string] => ["topic", topicFilter]);
    return this.get(`streams/${encodeURIComponent(stream)}/records`, [...query, ["from", from], ["order", "asc"], ["limit", String(limit)], ["format", "json"]]);
  }

  stream(name: string, signal?: AbortSignal): Promise<StreamInfo> {
    return this.get(`streams/${encodeURIComponent(name)}`, [], signal);
  }

  /** The latest record of each topic as it was at a time, that time included. */
  topicsAt(topicFilters: readonly string[], at: string, limit: number, after: string | null, signal?: AbortSignal): Promise<TopicsPage> {
    const query = topicFilters.map((topicFilter): [string, string] => ["topic", topicFilter]);
    query.push(["at", at], ["limit", String(limit)]);
    if (after !== null) query.push(["after", after]);
    return this.get("topics", query, signal);
  }

  /** `clientId`: only what this client sent; empty: everybody. */
  histogram(topicFilters: readonly string[], from: string, to: string, buckets: number, clientId: string, signal?: AbortSignal): Promise<HistogramAnswer> {
    const query = topicFilters.map((topicFilter): [string, string] => ["topic", topicFilter]);
    if (clientId) query.push(["client_id", clientId]);
    return this.get("histogram", [...query, ["from", from], ["to", to], ["buckets", String(buckets)]], signal);
  }

  /** One field of one topic, reduced; `field` is a JSON Pointer. */
  series(topic: string, field: string, from: string, to: string, points: number, signal?: AbortSignal): Promise<SeriesAnswer> {
    const query: [string, string][] = [
      ["topic", topic],
      ["field", field],
      ["from", from],
      ["to", to],
      ["points", String(points)],
    ];
    return this.get("series", query, signal);
  }

  /** Devices in order of their ids, behind `after`. */
  devices(more: { q?: string; state?: string; after?: string; limit: number }, signal?: AbortSignal): Promise<DevicesPage> {
    const query: [string, string][] = [["limit", String(more.limit)]];
    for (const name of ["q", "state", "after"] as const) {
      const value = more[name];
      if (value) query.push([name, value]);
    }
    return this.get("devices", query, signal);
  }

  device(id: string, signal?: AbortSignal): Promise<DeviceInfo> {
    return this.get(`devices/${encodeURIComponent(id)}`, [], signal);
  }

  /** Newest changes first; `to`: those before a time. */
  timeline(id: string, limit: number, to: string, signal?: AbortSignal): Promise<ChangesPage> {
    const query: [string, string][] = [
      ["order", "desc"],
      ["limit", String(limit)],
    ];
    if (to) query.push(["to", to]);
    return this.get(`devices/${encodeURIComponent(id)}/timeline`, query, signal);
  }

  /** Closes a device's connection, or forgets its session. */
  end(id: string, what: "connection" | "session"): Promise<unknown> {
    return this.get(`devices/${encodeURIComponent(id)}/${what}`, [], undefined, "DELETE");
  }

  private async get<Answer>(path: string, query: [string, string][], signal?: AbortSignal, method = "GET"): Promise<Answer> {
    const init: RequestInit = { method, headers: { Accept: "application/json" }, cache: "no-store" };
    if (signal) init.signal = signal;
    const response = await fetch(this.url(path, query), init);
    if (!response.ok) throw new ApiError(response.status, await problemText(response));
    return (await response.json()) as Answer;
  }
}
