/**
 * Requests to the server's API, for page and worker. Addresses are relative to the page, so that a root_path works.
 * Errors become ApiError with the sentence of the server's problem+json.
 */
import type { RecordsPage, StreamInfo, SystemInfo } from "./types";

export class ApiError extends Error {
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message);
    this.name = "ApiError";
  }
}

/** The server's own sentence about a refused request, or what the status means. */
export async function problemText(response: Response): Promise<string> {
  const body = await response.text();
  try {
    const problem = JSON.parse(body) as { title?: string; detail?: string };
    const text = problem.detail ?? problem.title;
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
    more: { from?: string; cursor?: string; signal?: AbortSignal } = {},
  ): Promise<RecordsPage> {
    const query: [string, string][] = [
      ...topicFilters.map((topicFilter): [string, string] => ["topic", topicFilter]),
      ["order", "desc"],
      ["limit", String(limit)],
      ["format", "json"],
    ];
    if (more.from) query.push(["from", more.from]);
    if (more.cursor) query.push(["cursor", more.cursor]);
    return this.get(`streams/${encodeURIComponent(stream)}/records`, query, more.signal);
  }

  private async get<Answer>(path: string, query: [string, string][], signal?: AbortSignal): Promise<Answer> {
    const init: RequestInit = { headers: { Accept: "application/json" }, cache: "no-store" };
    if (signal) init.signal = signal;
    const response = await fetch(this.url(path, query), init);
    if (!response.ok) throw new ApiError(response.status, await problemText(response));
    return (await response.json()) as Answer;
  }
}
