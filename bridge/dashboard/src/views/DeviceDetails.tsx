/** One device: its connection as a lane on the page's time bar, what happened to it, what it is like, and two commands. */
import { signal, useSignal } from "@preact/signals";
import { ApiClient, ApiError, faultOf } from "../api/client";
import type { DeviceInfo, PresenceChange } from "../api/types";
import { BUCKETS, CHANGES_MAX, DEVICES_MS } from "../app/limits";
import { now, shown } from "../app/link";
import { go } from "../app/router";
import { goLive, goTo, inPast, range } from "../app/timeline";
import { age, dayTime, grouped, momentWords, span } from "../time/format";
import { laneOf, missingOf, missingWords, type Lane } from "../time/lane";
import { Fact, Group } from "../parts/Facts";
import { State } from "./DeviceState";
import { changeSign, changeWords, costOf, countedWords, FLAPPING_CONNECTS, isFlapping, protocolWords, sessionWords, sinceWords, stateOf, STATE_WORDS, UNKNOWN } from "./device-words";
import { MessageLane } from "./MessageLane";
import { PageLink } from "./SideBar";
import { usePolled } from "./polled";

const api = new ApiClient(new URL("api/v1/", document.baseURI).href);

/** So that what a command did is seen at once. */
const asked = signal(0);

export function DeviceDetails({ id }: { id: string }) {
  const device = useSignal<DeviceInfo | null>(null);
  const changes = useSignal<PresenceChange[] | null>(null);
  const hasMore = useSignal(false);
  const isForgotten = useSignal(false);
  const fault = useSignal("");
  const at_ms = inPast.value ? shown.value : null;
  usePolled(DEVICES_MS, at_ms === null, [id, at_ms, asked.value], async (abort) => {
    try {
      const page = await api.timeline(id, CHANGES_MAX, at_ms === null ? "" : new Date(at_ms + 1).toISOString(), abort);
      changes.value = page.changes.reverse();
      hasMore.value = page.next !== null;
      device.value = await api.device(id, abort);
      isForgotten.value = false;
      fault.value = "";
    } catch (error) {
      if (abort.aborted) return;
      isForgotten.value = error instanceof ApiError && error.status === 404;
      if (isForgotten.value) device.value = null;
      fault.value = isForgotten.value ? "" : faultOf(error);
    }
  });
  const list = changes.value;
  return (
    <main class="streams devices">
      <p class="crumbs">
        <PageLink view="devices">Devices</PageLink>
      </p>
      {fault.value ? (
        <p class="notice fault" role="alert">
          <span class="sign bad">✕</span>
          <span class="text">
            {list ? "This is not new: the server did not answer" : "The device did not load"}: {fault.value}.
          </span>
        </p>
      ) : null}
      {!list ? fault.value ? null : <p class="reason late">Loading {id}</p> : <Loaded id={id} device={device.value} changes={list} hasMore={hasMore.value} isForgotten={isForgotten.value} />}
    </main>
  );
}

interface LoadedProps {
  id: string;
  device: DeviceInfo | null;
  changes: readonly PresenceChange[];
  hasMore: boolean;
  isForgotten: boolean;
}

function Loaded({ id, device, changes, hasMore, isForgotten }: LoadedProps) {
  const isPast = inPast.value;
  const latest = changes[changes.length - 1];
  const isUnknown = isForgotten && changes.length === 0;
  const state = isPast ? (latest ? stateOf(latest) : null) : device ? stateOf(device) : latest ? stateOf(latest) : null;
  return (
    <>
      <section class="panel facts-panel">
        <div class="panel-head">
          <h1>{id}</h1>
          {state ? <State state={state} /> : null}
          <span class="meta">{headWords(device, latest)}</span>
          {device && !isPast ? <Commands device={device} /> : null}
        </div>
        {isUnknown ? <p class="reason">This server does not know the device, and its stream has nothing about it.</p> : null}
        {isForgotten && !isUnknown ? <p class="reason">The server has forgotten the device. What happened to it is kept for longer:</p> : null}
        {changes.length ? <ConnectionLane changes={changes} hasMore={hasMore} /> : null}
        {isUnknown ? null : <MessageLane id={id} />}
        {isPast && device ? (
          <p class="notice past">
            <span class="text">What follows the list below is as it is now, not as it was at {momentWords(shown.value, false)}.</span>
            <button class="button bordered" onClick={goLive}>
              Go live
            </button>
          </p>
        ) : null}
      </section>
      {changes.length ? <Changes changes={changes} hasMore={hasMore} keepAlive_s={device?.keep_alive_s ?? 0} /> : null}
      {device ? <Facts device={device} /> : null}
    </>
  );
}

function headWords(device: DeviceInfo | null, latest: PresenceChange | undefined): string {
  if (inPast.value) return latest ? `for ${age(shown.value - Date.parse(latest.time))} at ${momentWords(shown.value, false)}` : "not seen by then";
  if (!device) return "";
  const flapping = isFlapping(device) ? ` · ▲ flapping: ${device.connects_10min} connects in 10 min (from ${FLAPPING_CONNECTS} on)` : "";
  return `${device.online ? "for " : ""}${sinceWords(device, now.value)}${flapping}`;
}

/** On the time bar's own range, so that both show the same moments below each other. */
function ConnectionLane({ changes, hasMore }: { changes: readonly PresenceChange[]; hasMore: boolean }) {
  const { from_ms, width_ms } = range.value;
  const to_ms = Math.min(from_ms + BUCKETS * width_ms, inPast.value ? shown.value : now.value);
  const whole_ms = BUCKETS * width_ms;
  // Without its older changes nobody knows what it was before them; else it had not been here yet.
  const lane = laneOf(changes, from_ms, to_ms);
  const left = (time_ms: number): string => `${((time_ms - from_ms) / whole_ms) * 100}%`;
  return (
    <div class="lane" role="img" aria-label={laneWords(lane, hasMore)}>
      {lane.stretches.map((stretch) => (
        <span
          class={`stretch is-${stretch.state}`}
          key={stretch.from_ms}
          title={`${stretch.state === "unknown" ? (hasMore ? "not loaded" : "not seen yet") : STATE_WORDS[stretch.state]}, ${momentWords(stretch.from_ms, false)} to ${momentWords(stretch.to_ms, false)}`}
          style={{ left: left(stretch.from_ms), width: `${((stretch.to_ms - stretch.from_ms) / whole_ms) * 100}%` }}
        />
      ))}
      {lane.takeOvers.map((at_ms, index) => (
        <span class="tick" key={index} title={`taken over at ${momentWords(at_ms, false)}`} style={{ left: left(at_ms) }}>
          ↷
        </span>
      ))}
    </div>
  );
}

function laneWords(lane: Lane, hasMore: boolean): string {
  const offline = lane.stretches.filter((stretch) => stretch.state === "gone" || stretch.state === "session").length;
  const parts = [`Connection in the window of the time bar: offline ${grouped(offline)} ${offline === 1 ? "time" : "times"}`, `${grouped(lane.takeOvers.length)} taken over`];
  return parts.join(", ") + (hasMore ? "; older changes are not loaded" : "");
}

function Changes({ changes, hasMore, keepAlive_s }: { changes: readonly PresenceChange[]; hasMore: boolean; keepAlive_s: number }) {
  const missing = new Map(missingOf(changes).map((entry) => [entry.seq, entry.count]));
  return (
    <section class="panel changes">
      <div class="panel-head">
        <h2>What happened</h2>
        <span class="meta">
          {hasMore ? `the latest ${grouped(changes.length)}` : grouped(changes.length)} {changes.length === 1 ? "change" : "changes"}, newest first
        </span>
      </div>
      <ol>
        {[...changes].reverse().flatMap((change) => [
          <li key={change.seq} data-seq={change.seq}>
            <button class="button link mono" title="Show everything as it was then" onClick={() => goTo(Date.parse(change.time))}>
              {dayTime(Date.parse(change.time), now.value)}
            </button>
            <span class={change.online ? "sign ok" : "meta"} aria-hidden="true">
              {changeSign(change)}
            </span>
            <span>{changeWords(change, keepAlive_s)}</span>
            {!change.online && change.session ? <span class="meta">its session stays</span> : null}
          </li>,
          ...(missing.has(change.seq)
            ? [
                <li class="loss" key={`missing ${change.seq}`}>
                  ╳ {missingWords(missing.get(change.seq) ?? 0)}
                </li>,
              ]
            : []),
        ])}
      </ol>
    </section>
  );
}

function Facts({ device }: { device: DeviceInfo }) {
  const { counters } = device;
  return (
    <section class="panel facts-panel">
      <div class="groups">
        <Group title={device.online ? "Connection" : "Its last connection"}>
          <Fact name="Address">{device.address ?? UNKNOWN}</Fact>
          <Fact name="Protocol">MQTT {protocolWords(device)}</Fact>
          <Fact name="Keep alive">{device.keep_alive_s ? span(device.keep_alive_s) : "none"}</Fact>
          <Fact name="Last seen">{age(now.value - Date.parse(device.last_seen))} ago</Fact>
          <Fact name="Received">{countedWords(counters.messages_in, counters.bytes_in)}</Fact>
          <Fact name="Sent">{countedWords(counters.messages_out, counters.bytes_out)}</Fact>
        </Group>
        <Group title="Session">
          <Fact name="Session">{sessionWords(device)}</Fact>
          <Fact name="Queued">{device.session ? grouped(device.session.queued) : UNKNOWN}</Fact>
        </Group>
        <Group title={`Subscriptions · ${grouped(device.subscriptions.length)}`}>
          {device.subscriptions.length ? (
            device.subscriptions.map((subscription) => (
              <Fact name={`QoS ${subscription.qos}`} key={subscription.filter}>
                <span class="mono">{subscription.filter}</span>
              </Fact>
            ))
          ) : (
            <Fact name="None">it receives nothing</Fact>
          )}
        </Group>
        <Group title="Its messages">
          <Fact name="Topics and values">
            <button class="button link" onClick={() => go({ view: "live", name: "", terms: [`client:${device.client_id}`] })}>
              Show them in Live
            </button>
          </Fact>
        </Group>
      </div>
    </section>
  );
}

function Commands({ device }: { device: DeviceInfo }) {
  const asking = useSignal<"connection" | "session" | null>(null);
  const fault = useSignal("");
  const run = async (what: "connection" | "session"): Promise<void> => {
    try {
      await api.end(device.client_id, what);
      asking.value = null;
      fault.value = "";
      asked.value += 1;
    } catch (error) {
      fault.value = faultOf(error);
    }
  };
  const what = asking.value;
  if (!what) {
    return (
      <span class="commands">
        {device.online ? (
          <button class="button bordered" onClick={() => (asking.value = "connection")}>
            Disconnect
          </button>
        ) : null}
        {device.session && !device.session.clean ? (
          <button class="button bordered" onClick={() => (asking.value = "session")}>
            Forget session
          </button>
        ) : null}
      </span>
    );
  }
  return (
    <span class="commands" role="alertdialog" aria-label={what === "connection" ? "Disconnect" : "Forget session"}>
      <span class="text">
        {costOf(device, what)} {fault.value ? <span class="is-bad">It did not work: {fault.value}</span> : null}
      </span>
      <button class="button bordered danger" ref={(button) => button?.focus()} onClick={() => void run(what)}>
        {what === "connection" ? "Disconnect" : "Forget session"}
      </button>
      <button class="button" onClick={() => (asking.value = null)}>
        Cancel
      </button>
    </span>
  );
}
