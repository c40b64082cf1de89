/**
 * The worker: owns all data, and sends the page what is on screen: what is now, or what was. The page's thread only draws.
 * Parsing, sorting and history happen here; nothing is sent while the page is hidden or still paints the frame before.
 */
import { ApiClient } from "../api/client";
import { FAST_PLOTS_MAX, FILTER_SETTLE_MS, FRAME_MS, HEAD_MS, REFRESH_MS, SLOW_PLOT_FRAME_MS } from "../app/limits";
import { ServerClock } from "../time/clock";
import { tailFrame, treeFrame, ValuesReader } from "./frames";
import type { WantedSeries } from "./history";
import { LiveSide } from "./live-side";
import type { ConnectionFrame, Detail, FieldFrame, Frame, FromWorker, Part, TimeFrame, TimeRequest, ToWorker, ViewRequest } from "./messages";
import { PastSide } from "./past-side";
import { planOf } from "./plan";

interface WorkerScope {
  postMessage(message: FromWorker): void;
  onmessage: ((event: MessageEvent<ToWorker>) => void) | null;
}

const TICK_MS = 200;
/** Clock and thinning are asked for so often. */
const SYSTEM_MS = 15_000;
/** Plots wait so long for the log to say which fields change, so that they need not be chosen twice. */
const FIELDS_KNOWN_MS = 1_000;
const DATA: readonly Part[] = ["tree", "tail", "values", "gaps", "time"];

class StreamWorker {
  private api = new ApiClient("");
  private heartbeat_s = 15;
  private readonly clock = new ServerClock();
  private live = new LiveSide(this.api, this.heartbeat_s, planOf([]), this.clock, () => undefined);
  private past: PastSide | null = null;
  private readonly values = new ValuesReader();
  private view: ViewRequest | null = null;
  private timeId = 0;
  private isHidden = false;
  private filterTimer: ReturnType<typeof setTimeout> | undefined;

  private dirty: Record<Part, boolean> = { connection: true, tree: true, tail: true, values: true, gaps: true, time: true };
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
        this.start(message);
        break;
      case "time":
        this.setTime(message.time);
        break;
      case "filter":
        clearTimeout(this.filterTimer);
        this.filterTimer = setTimeout(() => this.changeFilter(message.terms), FILTER_SETTLE_MS);
        break;
      case "view":
        this.setView(message.view);
        break;
      case "open":
        this.side.model.treeView.setOpen(message.path, message.isOpen);
        this.mark("tree");
        break;
      case "visibility":
        this.setHidden(message.isHidden);
        break;
      case "reconnect":
        this.live.stream.input({ kind: "now" });
        this.past?.stream?.input({ kind: "now" });
        break;
      case "retry":
        this.side.history.retry(this.side.model, message.topic);
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

  private start(message: Extract<ToWorker, { kind: "start" }>): void {
    this.api = new ApiClient(message.base);
    this.heartbeat_s = message.heartbeat_s;
    this.live = new LiveSide(this.api, this.heartbeat_s, planOf(message.terms), this.clock, (...parts) => this.markLive(...parts));
    this.setView(message.view);
    this.setHidden(message.isHidden);
    setInterval(() => this.tick(), TICK_MS);
    setInterval(() => this.refresh(), REFRESH_MS);
    setInterval(() => this.past?.isReplaying && this.mark("time"), HEAD_MS);
    setInterval(() => void this.askSystem(), SYSTEM_MS);
    void this.askSystem();
    this.setTime(message.time); // a page that opens in a replay has no live stream yet
    this.live.start();
  }

  /** What is on screen: now, or what was. */
  private get side(): LiveSide | PastSide {
    return this.past ?? this.live;
  }

  // ---- time ---------------------------------------------------------------------------------------------------------

  private setTime({ id, state, isContinued }: TimeRequest): void {
    this.timeId = id;
    this.values.forget();
    if (state.mode === "live") {
      this.leavePast();
      this.live.resume();
    } else if (state.mode === "paused") {
      this.leavePast();
      this.live.pause(state.at_ms);
    } else if (state.mode === "past") {
      this.live.resume();
      this.goTo(state.at_ms);
    } else {
      this.live.resume();
      if (!this.past || (!isContinued && (this.past.isReplaying || this.past.at_ms !== state.from_ms))) this.goTo(state.from_ms);
      this.past?.play(state.speed);
    }
    // A page has one stream: while a replay runs, the live one sleeps and keeps its position.
    this.live.stream.input({ kind: state.mode === "replaying" ? "sleep" : "wake" });
    // A pause leaves what is on the screen; only a frame that is on its way there comes again, for this moment.
    if (state.mode === "paused" && !this.isPainting) this.mark("connection", "time");
    else this.mark("connection", ...DATA);
  }

  private goTo(at_ms: number): void {
    const like = this.side.model.treeView;
    this.past?.close();
    const past: PastSide = new PastSide(this.api, this.heartbeat_s, this.live.plan, at_ms, (...parts) => {
      if (this.past === past) this.mark(...parts);
    });
    this.past = past;
    past.model.treeView.sort = this.view?.sort ?? "name";
    past.load(like);
  }

  private leavePast(): void {
    this.past?.close();
    this.past = null;
  }

  private changeFilter(terms: string[]): void {
    this.live.filter(terms);
    if (!this.past) return;
    const { speed } = this.past;
    this.goTo(speed === null ? this.past.at_ms : Math.round(this.past.moment_ms()));
    if (speed !== null) this.past.play(speed);
    this.mark(...DATA);
  }

  // ---- connection ---------------------------------------------------------------------------------------------------

  private tick(): void {
    this.live.stream.input({ kind: "tick" });
    this.past?.stream?.input({ kind: "tick" });
  }

  /** Ages, rates and silence move without messages; what was does not. */
  private refresh(): void {
    if (this.past || this.live.isPaused) this.mark("connection");
    else this.mark("connection", "tree", "values");
  }

  private async askSystem(): Promise<void> {
    const sent_ms = Date.now();
    try {
      const system = await this.api.system();
      this.clock.sample(Date.parse(system.time), sent_ms, Date.now());
      this.live.noteThinning(system.readers ?? []);
      this.mark("connection");
    } catch (error) {
      // The stream's own state says what is wrong; the next minute asks again.
      if (!(error instanceof Error)) throw error;
    }
  }

  private setHidden(isHidden: boolean): void {
    this.isHidden = isHidden;
    const kind = isHidden ? "hidden" : "shown";
    this.live.stream.input({ kind });
    this.past?.stream?.input({ kind });
    if (!isHidden) this.mark("connection", ...DATA);
  }

  // ---- frames -------------------------------------------------------------------------------------------------------

  private setView(view: ViewRequest): void {
    const old = this.view;
    this.view = view;
    const { treeView } = this.side.model;
    if (old && old.sort !== view.sort) {
      treeView.setSort(view.sort);
      this.live.model.treeView.setSort(view.sort);
    }
    if (!old) treeView.sort = view.sort;
    this.mark("tree", "tail", "values");
  }

  /** Something live changed: it is on screen only while the page shows what is now. */
  private markLive(...parts: Part[]): void {
    if (this.past) this.mark(...parts.filter((part) => part === "connection"));
    else this.mark(...parts);
  }

  private mark(...parts: Part[]): void {
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
    const { side, dirty } = this;
    const { model } = side;
    const local_ms = Date.now();
    const shown_ms = side.moment_ms();
    const frame: Frame = { kind: "frame", timeId: this.timeId };
    const isTreeKnown = this.past?.isTreeKnown ?? true;
    const isTailKnown = this.past?.isTailKnown ?? true;
    const isPlotTime = this.shownPlots <= FAST_PLOTS_MAX || local_ms - this.valuesFramedAt_ms >= SLOW_PLOT_FRAME_MS;
    if (dirty.connection) frame.connection = this.connectionFrame();
    if (dirty.time) frame.time = this.timeFrame(shown_ms);
    if (dirty.tree && isTreeKnown) frame.tree = treeFrame(model, view, shown_ms);
    if (dirty.tail && isTailKnown) frame.tail = tailFrame(model, view, shown_ms);
    if (dirty.gaps) frame.gaps = model.gaps.map((gap) => ({ ...gap }));
    const isValues = dirty.values && isPlotTime && this.areFieldsKnown(local_ms);
    if (isValues) {
      frame.values = this.values.frame(model, view, this.past !== null);
      this.shownPlots = frame.values.fields.length;
      this.valuesFramedAt_ms = local_ms;
      for (const wanted of this.wantedSeries(frame.values.fields, shown_ms, view)) side.history.wantSeries(model, wanted);
    }
    if (this.live.model.firstMessage && !this.hasToldFirst) {
      frame.firstMessage = this.live.model.firstMessage;
      this.hasToldFirst = true;
    }
    this.dirty = {
      connection: false,
      time: false,
      gaps: false,
      // What is not known yet is marked again when it comes.
      tree: false,
      tail: false,
      values: dirty.values && !isValues && model.isComplete,
    };
    this.framedAt_ms = local_ms;
    this.isPainting = true;
    this.scope.postMessage(frame);
  }

  private wantedSeries(fields: readonly FieldFrame[], shown_ms: number, view: ViewRequest): WantedSeries[] {
    const byTopic = new Map<string, WantedSeries>();
    const isNow = !this.past && !this.live.isPaused;
    // A replay brings what comes after its beginning by itself.
    const end_ms = this.past ? this.past.at_ms : shown_ms;
    for (const { topic, pointer } of fields) {
      const stream = this.side.model.tree.find(topic)?.latest?.record.stream;
      if (!stream) continue;
      const wanted = byTopic.get(topic);
      if (wanted) wanted.pointers.push(pointer);
      else {
        const from_ms = Math.max(0, end_ms - view.window_ms);
        byTopic.set(topic, { topic, stream, pointers: [pointer], from_ms, to_ms: isNow ? null : end_ms, isBrief: this.past !== null });
      }
    }
    return [...byTopic.values()];
  }

  /** Which fields change is known from the log; a slow answer is not waited for. */
  private areFieldsKnown(local_ms: number): boolean {
    if (this.past) return this.past.isTreeKnown && this.past.isTailKnown;
    const { model, stream } = this.live;
    return model.isComplete && (model.tailHistory !== "loading" || local_ms - stream.openedAt_ms > FIELDS_KNOWN_MS);
  }

  private timeFrame(shown_ms: number): TimeFrame {
    const { past } = this;
    return {
      shown_ms,
      newer: this.live.newer,
      treeFault: past?.treeFault ?? "",
      treeFrom_ms: past?.treeFrom_ms ?? null,
      replayFault: past?.replayFault ?? "",
      hasCaughtUp: past?.hasCaughtUp ?? false,
    };
  }

  /** The stream that works: while a replay runs that is its own. */
  private connectionFrame(): ConnectionFrame {
    const { live } = this;
    const { phase, hasBeenOpen, attempt, retryAt_ms, refusal } = (this.past?.stream ?? live.stream).state;
    return {
      phase,
      hasBeenOpen,
      attempt,
      retryAt_ms,
      refusal: this.past?.replayFault ? null : refusal,
      delay_ms: this.past?.isReplaying ? null : live.delay_ms,
      conflated: live.conflatedLately,
      received: live.model.received,
      repeated: live.model.repeated,
      opened: live.stream.opened,
      clockOffset_ms: this.clock.offset_ms,
      faults: live.plan.faults,
    };
  }

  private sendDetail(number: number): void {
    const entry = this.side.model.tail.find(number);
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
