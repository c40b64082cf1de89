/**
 * The worker: owns the page's one stream and all data, and sends the page what is on screen. The page's thread only draws.
 * Parsing, sorting and history happen here; nothing is sent while the page is hidden or still paints the frame before.
 */
import { ApiClient, problemText } from "../api/client";
import type { GapData, ReaderInfo, RecordData } from "../api/types";
import { FAST_PLOTS_MAX, FILTER_SETTLE_MS, FRAME_MS, REFRESH_MS, SLOW_PLOT_FRAME_MS } from "../app/limits";
import { ServerClock } from "../time/clock";
import { INITIAL, step, type ConnectionState, type Effect, type Input } from "./connection";
import { tailFrame, treeFrame, ValuesReader } from "./frames";
import { HistoryLoader } from "./history";
import type { Detail, Frame, FromWorker, ToWorker, ViewRequest } from "./messages";
import { Model } from "./model";
import { planOf } from "./plan";
import { EventTooLong, SseParser, type ServerEvent } from "./sse-parser";

interface WorkerScope {
  postMessage(message: FromWorker): void;
  onmessage: ((event: MessageEvent<ToWorker>) => void) | null;
}

const TICK_MS = 200;
/** Clock and thinning are asked for so often. */
const SYSTEM_MS = 15_000;
/** Plots wait so long for the log to say which fields change, so that they need not be chosen twice. */
const FIELDS_KNOWN_MS = 1_000;
/** Answers that a repeat of the same request will not change. */
const REFUSALS = new Set([400, 401, 403, 404, 405, 406, 410, 414, 431]);

class StreamWorker {
  private api = new ApiClient("");
  private heartbeat_s = 15;
  private connection: ConnectionState = INITIAL;
  private model = new Model(planOf([]));
  private plan = planOf([]);
  private readonly values = new ValuesReader();
  private history = new HistoryLoader(this.api, () => undefined);
  private readonly clock = new ServerClock();
  private view: ViewRequest | null = null;
  private isHidden = false;

  private abort: AbortController | null = null;
  private cursor: string | null = null;
  private retry_ms = 0;
  private isOtherFilter = true;
  private wasSkipped = false;
  private opened = 0;
  private openedAt_ms = 0;
  private delay_ms: number | null = null;
  private conflated = 0;
  private conflatedLately = 0;
  private filterTimer: ReturnType<typeof setTimeout> | undefined;

  private dirty = { connection: true, tree: true, tail: true, values: true, gaps: true };
  private isPainting = false;
  private frameTimer: ReturnType<typeof setTimeout> | undefined;
  private framedAt_ms = 0;
  private valuesFramedAt_ms = 0;
  private shownPlots = 0;
  private hasToldFirst = false;

  constructor(private readonly scope: WorkerScope) {}

  handle(message: ToWorker): void {
    switch (message.kind) {
      case "start":
        this.api = new ApiClient(message.base);
        this.history = new HistoryLoader(this.api, () => this.mark("tail", "values", "tree"));
        this.heartbeat_s = message.heartbeat_s;
        this.plan = planOf(message.terms);
        this.model = new Model(this.plan);
        this.setView(message.view);
        this.setHidden(message.isHidden);
        setInterval(() => this.tick(), TICK_MS);
        setInterval(() => this.mark("connection", "tree", "values"), REFRESH_MS);
        setInterval(() => void this.askSystem(), SYSTEM_MS);
        void this.askSystem();
        this.input({ kind: "start" });
        break;
      case "filter":
        clearTimeout(this.filterTimer);
        this.filterTimer = setTimeout(() => this.changeFilter(message.terms), FILTER_SETTLE_MS);
        break;
      case "view":
        this.setView(message.view);
        break;
      case "open":
        this.model.treeView.setOpen(message.path, message.isOpen);
        this.mark("tree");
        break;
      case "visibility":
        this.setHidden(message.isHidden);
        break;
      case "reconnect":
        this.input({ kind: "now" });
        break;
      case "retry":
        this.history.retry(this.model, message.topic);
        this.mark("values");
        break;
      case "detail":
        this.sendDetail(message.number);
        break;
      case "painted":
        this.isPainting = false;
        this.schedule();
        break;
    }
  }

  // ---- connection ---------------------------------------------------------------------------------------------------

  private input(input: Input): void {
    const { state, effects } = step(this.connection, input, Date.now(), Math.random(), this.heartbeat_s);
    const isOther = state.phase !== this.connection.phase || state.attempt !== this.connection.attempt;
    this.connection = state;
    for (const effect of effects) this.carryOut(effect);
    if (isOther) this.mark("connection");
  }

  private carryOut(effect: Effect): void {
    if (effect.kind === "abort") this.abort?.abort();
    else if (effect.kind === "skipped") {
      this.wasSkipped = true;
      const now_ms = this.clock.now(Date.now());
      this.model.skipped(now_ms - effect.away_ms, now_ms);
      this.mark("tail");
    } else void this.openStream(effect.isFresh);
  }

  private tick(): void {
    this.input({ kind: "tick" });
  }

  private changeFilter(terms: string[]): void {
    this.plan = planOf(terms);
    this.isOtherFilter = true;
    this.input({ kind: "start" });
    this.mark("connection");
  }

  private async openStream(isFresh: boolean): Promise<void> {
    this.abort?.abort();
    const abort = new AbortController();
    this.abort = abort;
    const query: [string, string][] = this.plan.topicFilters.map((topicFilter) => ["topic", topicFilter]);
    query.push(["snapshot", "1"], ["overflow", "conflate"]);
    const headers: Record<string, string> = { Accept: "text/event-stream" };
    if (!isFresh && this.cursor) headers["Last-Event-ID"] = this.cursor;
    let fault: unknown = null;
    try {
      const response = await fetch(this.api.url("events", query), { headers, signal: abort.signal, cache: "no-store" });
      if (!response.ok || !response.body) {
        await this.refuse(response, abort);
        return;
      }
      this.hasOpened(isFresh);
      await this.read(response.body.getReader(), abort);
    } catch (error) {
      fault = error;
    }
    if (this.abort !== abort || abort.signal.aborted) return; // we closed it ourselves
    if (fault instanceof SyntaxError || fault instanceof EventTooLong) {
      // Not a cut: something between here and the server speaks another language, and would again.
      abort.abort();
      this.input({ kind: "refused", status: 200, text: `the stream holds what this page cannot read: ${fault.message}` });
      return;
    }
    this.input({ kind: "closed", retry_ms: this.retry_ms });
  }

  private async refuse(response: Response, abort: AbortController): Promise<void> {
    const text = await problemText(response);
    if (this.abort !== abort) return;
    if (REFUSALS.has(response.status)) this.input({ kind: "refused", status: response.status, text });
    else this.input({ kind: "closed", retry_ms: Number(response.headers.get("Retry-After") ?? 0) * 1000 || 0 });
  }

  private hasOpened(isFresh: boolean): void {
    this.opened += 1;
    this.openedAt_ms = Date.now();
    if (this.isOtherFilter) {
      this.model.reset(this.plan);
      this.history.reset();
      this.values.reset();
      this.isOtherFilter = false;
      this.cursor = null;
      this.history.loadTail(this.model);
    } else if (isFresh || this.wasSkipped) {
      // The plots fill what was missed from the log.
      this.history.reset();
      this.model.series.clear();
      this.values.reset();
      this.cursor = null; // the old one would bring back what is skipped
    }
    this.wasSkipped = false;
    this.input({ kind: "opened" });
    this.mark("tree", "tail", "values", "gaps", "connection");
  }

  private async read(reader: ReadableStreamDefaultReader<Uint8Array>, abort: AbortController): Promise<void> {
    const decoder = new TextDecoder();
    const parser = new SseParser();
    for (;;) {
      const { done, value } = await reader.read();
      if (done || this.abort !== abort) return;
      this.input({ kind: "bytes" });
      const events = parser.feed(decoder.decode(value, { stream: true }));
      for (const event of events) this.takeEvent(event);
      if (parser.lastEventId !== null) this.cursor = parser.lastEventId;
      if (parser.retry_ms !== null) this.retry_ms = parser.retry_ms;
    }
  }

  private takeEvent(event: ServerEvent): void {
    const now_ms = Date.now();
    switch (event.name) {
      case "message":
      case "snapshot": {
        const record = JSON.parse(event.data) as RecordData;
        const isSnapshot = event.name === "snapshot";
        const hadOpenGap = this.model.hasOpenGap;
        if (!this.model.take(record, event.data.length, isSnapshot)) return;
        if (hadOpenGap && !this.model.hasOpenGap) this.mark("gaps");
        if (!isSnapshot) {
          const time_ms = Date.parse(record.time);
          this.clock.heard(time_ms, now_ms);
          this.delay_ms = this.clock.now(now_ms) - time_ms;
          this.mark("tail");
        }
        this.mark("tree", "values");
        break;
      }
      case "live":
        this.model.live();
        this.input({ kind: "live" });
        this.mark("tree", "values", "tail");
        break;
      case "gap":
        this.model.gap(JSON.parse(event.data) as GapData, this.clock.now(now_ms));
        this.mark("gaps", "tail", "values");
        break;
    }
  }

  private async askSystem(): Promise<void> {
    const sent_ms = Date.now();
    try {
      const system = await this.api.system();
      this.clock.sample(Date.parse(system.time), sent_ms, Date.now());
      this.noteThinning(system.readers ?? []);
      this.mark("connection");
    } catch (error) {
      // The stream's own state says what is wrong; the next minute asks again.
      if (!(error instanceof Error)) throw error;
    }
  }

  /** The server counts what it conflates for each reader. Which of them is this page is only certain when one fits. */
  private noteThinning(readers: readonly ReaderInfo[]): void {
    const filters = [...this.plan.topicFilters].sort().join(" ");
    const fitting = readers.filter((reader) => reader.policy === "conflate" && [...reader.filters].sort().join(" ") === filters);
    const conflated = fitting.length === 1 ? (fitting[0]?.conflated ?? 0) : 0;
    this.conflatedLately = Math.max(0, conflated - this.conflated);
    this.conflated = conflated;
  }

  // ---- frames -------------------------------------------------------------------------------------------------------

  private setView(view: ViewRequest): void {
    const old = this.view;
    this.view = view;
    if (old && old.sort !== view.sort) this.model.treeView.setSort(view.sort);
    if (!old) this.model.treeView.sort = view.sort;
    this.mark("tree", "tail", "values");
  }

  private setHidden(isHidden: boolean): void {
    this.isHidden = isHidden;
    this.input({ kind: isHidden ? "hidden" : "shown" });
    if (!isHidden) this.mark("connection", "tree", "tail", "values", "gaps");
  }

  private mark(...parts: (keyof StreamWorker["dirty"])[]): void {
    for (const part of parts) this.dirty[part] = true;
    this.schedule();
  }

  private schedule(): void {
    if (this.isHidden || this.isPainting || this.frameTimer !== undefined || !this.view) return;
    if (!Object.values(this.dirty).some(Boolean)) return;
    const wait_ms = Math.max(0, this.framedAt_ms + FRAME_MS - Date.now());
    this.frameTimer = setTimeout(() => {
      this.frameTimer = undefined;
      this.sendFrame();
    }, wait_ms);
  }

  private sendFrame(): void {
    const view = this.view;
    if (!view || this.isHidden) return;
    const local_ms = Date.now();
    const now_ms = this.clock.now(local_ms);
    const frame: Frame = { kind: "frame" };
    const isPlotTime = this.shownPlots <= FAST_PLOTS_MAX || local_ms - this.valuesFramedAt_ms >= SLOW_PLOT_FRAME_MS;
    if (this.dirty.connection) frame.connection = this.connectionFrame();
    if (this.dirty.tree) frame.tree = treeFrame(this.model, view, now_ms);
    if (this.dirty.tail) frame.tail = tailFrame(this.model, view, now_ms);
    if (this.dirty.gaps) frame.gaps = this.model.gaps.map((gap) => ({ ...gap }));
    const isValues = this.dirty.values && isPlotTime && this.areFieldsKnown(local_ms);
    if (isValues) {
      frame.values = this.values.frame(this.model, view);
      this.shownPlots = frame.values.fields.length;
      this.valuesFramedAt_ms = local_ms;
      for (const field of frame.values.fields) {
        const stream = this.model.tree.find(field.topic)?.latest?.record.stream;
        if (stream) this.history.wantSeries(this.model, field.topic, stream, now_ms - view.window_ms);
      }
    }
    if (this.model.firstMessage && !this.hasToldFirst) {
      frame.firstMessage = this.model.firstMessage;
      this.hasToldFirst = true;
    }
    const isValuesLater = this.dirty.values && !isValues && this.model.isComplete;
    this.dirty = { connection: false, tree: false, tail: false, values: isValuesLater, gaps: false };
    this.framedAt_ms = local_ms;
    this.isPainting = true;
    this.scope.postMessage(frame);
  }

  /** Which fields change is known from the log; a slow answer is not waited for. */
  private areFieldsKnown(local_ms: number): boolean {
    return this.model.isComplete && (this.model.tailHistory !== "loading" || local_ms - this.openedAt_ms > FIELDS_KNOWN_MS);
  }

  private connectionFrame(): NonNullable<Frame["connection"]> {
    const { phase, hasBeenOpen, attempt, retryAt_ms, refusal } = this.connection;
    return {
      phase,
      hasBeenOpen,
      attempt,
      retryAt_ms,
      refusal,
      delay_ms: this.delay_ms,
      conflated: this.conflatedLately,
      received: this.model.received,
      repeated: this.model.repeated,
      opened: this.opened,
      clockOffset_ms: this.clock.offset_ms,
      faults: this.plan.faults,
    };
  }

  private sendDetail(number: number): void {
    const entry = this.model.tail.find(number);
    if (!entry || entry.kind !== "message") return;
    const { record } = entry;
    const detail: Detail = {
      kind: "detail",
      number,
      topic: record.topic,
      clientId: record.client_id,
      time_ms: entry.time_ms,
      place: `${record.stream}:${record.partition}:${record.offset}`,
      qos: record.qos,
      retain: record.retain,
      encoding: record.encoding,
      text: !entry.isCut && record.encoding === "json" ? JSON.stringify(record.payload, null, 2) : entry.text,
      size: entry.text.length,
      isCut: entry.isCut,
      properties: record.properties ?? null,
    };
    this.scope.postMessage(detail);
  }
}

const scope = self as unknown as WorkerScope;
const worker = new StreamWorker(scope);
scope.onmessage = (event) => worker.handle(event.data);
