/** The Devices view: who is there and who has gone, live or at a moment; and the page of one device. Loaded on demand. */
import "../style/streams.css";
import "../style/devices.css";
import { signal } from "@preact/signals";
import { ApiClient, faultOf } from "../api/client";
import type { DeviceInfo, DevicesPage, PresenceChange } from "../api/types";
import { DEVICES_MS, DEVICES_PAGE } from "../app/limits";
import { now, shown } from "../app/link";
import { address } from "../app/router";
import { inPast } from "../app/timeline";
import { Table } from "../parts/Table";
import { age, grouped, momentWords, rate } from "../time/format";
import { DeviceDetails } from "./DeviceDetails";
import { State } from "./DeviceState";
import { hostOf, isFlapping, outWords, perSecond, protocolWords, reasonWords, sinceWords, STATE_HELP, STATE_SIGNS, STATE_WORDS, stateOf, STATES, UNKNOWN, type DeviceState } from "./device-words";
import { Refused } from "./Refused";
import { PageLink } from "./SideBar";
import { usePolled } from "./polled";

const api = new ApiClient(new URL("api/v1/", document.baseURI).href);

const page = signal<DevicesPage | null>(null);
const before = signal<{ at_ms: number; byId: Map<string, DeviceInfo> } | null>(null);
const then = signal<{ at_ms: number; changes: PresenceChange[]; isComplete: boolean } | null>(null);
const fault = signal("");
const search = signal("");
const wanted = signal<DeviceState | "">("");
/** Where each page began that was left behind, for the way back. */
const trail = signal<string[]>([]);

export default function Devices() {
  return address.value.view === "device" ? <DeviceDetails id={address.value.name} key={address.value.name} /> : <List />;
}

function List() {
  const at_ms = inPast.value ? shown.value : null;
  const [q, state, after] = [search.value, wanted.value, trail.value[trail.value.length - 1] ?? ""];
  usePolled(DEVICES_MS, at_ms === null, [at_ms, q, state, after], async (abort) => {
    try {
      if (at_ms === null) await askNow(q, state, after, abort);
      else await askThen(at_ms, q, abort);
      fault.value = "";
    } catch (error) {
      if (!abort.aborted) fault.value = faultOf(error);
    }
  });
  const isThere = at_ms === null ? page.value !== null : then.value !== null;
  return (
    <main class="streams devices">
      {fault.value ? (
        <p class="notice fault" role="alert">
          <span class="sign bad">✕</span>
          <span class="text">
            {isThere ? "This is not new: the server did not answer" : "The devices did not load"}: {fault.value}.
          </span>
        </p>
      ) : null}
      {!isThere ? <p class="reason late">Loading devices</p> : at_ms === null ? <Now /> : <Then at_ms={at_ms} />}
      {isThere ? <Refused at_ms={at_ms} /> : null}
    </main>
  );
}

async function askNow(q: string, state: string, after: string, abort: AbortSignal): Promise<void> {
  const answer = await api.devices({ q, state, after, limit: DEVICES_PAGE }, abort);
  const old = page.peek();
  if (old) before.value = { at_ms: askedAt, byId: new Map(old.devices.map((device) => [device.client_id, device])) };
  askedAt = Date.now();
  page.value = answer;
}

let askedAt = 0;

async function askThen(at_ms: number, q: string, abort: AbortSignal): Promise<void> {
  const answer = await api.topicsAt(["$presence/#"], new Date(at_ms).toISOString(), DEVICES_PAGE, null, abort);
  const changes = answer.topics.map((topic) => topic.payload as PresenceChange).filter((change) => change.client_id.toLowerCase().includes(q.toLowerCase()));
  then.value = { at_ms, changes, isComplete: answer.complete !== false && answer.next === null };
}

function Head({ counts, meta }: { counts: Record<DeviceState, number> | null; meta: string }) {
  return (
    <div class="panel-head">
      <h1>Devices</h1>
      {counts ? (
        <div class="states" role="group" aria-label="Show only">
          {STATES.map((state) => (
            <button
              class="button"
              key={state}
              title={STATE_HELP[state]}
              aria-pressed={wanted.value === state}
              disabled={inPast.value}
              onClick={() => {
                wanted.value = wanted.value === state ? "" : state;
                trail.value = [];
              }}
            >
              <span class={`state is-${state}`} aria-hidden="true">
                {STATE_SIGNS[state]}
              </span>
              {grouped(counts[state])} {STATE_WORDS[state]}
            </button>
          ))}
        </div>
      ) : null}
      <span class="meta">{meta}</span>
      <input
        class="find"
        type="search"
        placeholder="Part of a client id"
        aria-label="Find devices by a part of their client id"
        value={search.value}
        onInput={(event) => {
          search.value = event.currentTarget.value.trim();
          trail.value = [];
        }}
      />
    </div>
  );
}

function Now() {
  const answer = page.value;
  if (!answer) return null;
  const flapping = answer.devices.filter(isFlapping).length;
  return (
    <section class="panel">
      <Head counts={answer.counts ?? null} meta={flapping ? `▲ ${grouped(flapping)} flapping on this page` : ""} />
      {answer.devices.length === 0 ? (
        <p class="reason">{search.value || wanted.value ? "No device matches." : "No device has connected yet."}</p>
      ) : (
        <Table
          label="Devices"
          titles={["State", "Client", "Since", "Last seen", "Address", "Protocol", "In", "Out", "Connects 10 min", "Last reason"]}
        >
          {answer.devices.map((device) => (
            <Row key={device.client_id} device={device} />
          ))}
        </Table>
      )}
      <Pages next={answer.next} />
    </section>
  );
}

function Pages({ next }: { next: string | null }) {
  if (next === null && trail.value.length === 0) return null;
  return (
    <p class="pages">
      <button class="button bordered" disabled={trail.value.length === 0} onClick={() => (trail.value = trail.value.slice(0, -1))}>
        Back
      </button>
      <button class="button bordered" disabled={next === null} onClick={() => next !== null && (trail.value = [...trail.value, next])}>
        More
      </button>
      <span class="meta">{next === null ? "The last ones." : `Up to ${next}.`}</span>
    </p>
  );
}

function Row({ device }: { device: DeviceInfo }) {
  const state = stateOf(device);
  const old = before.value?.byId.get(device.client_id)?.counters;
  const elapsed_ms = askedAt - (before.value?.at_ms ?? askedAt);
  const [received, sent] = [perSecond(old?.messages_in, device.counters.messages_in, elapsed_ms), perSecond(old?.messages_out, device.counters.messages_out, elapsed_ms)];
  return (
    <tr data-device={device.client_id} data-state={state}>
      <td data-title="State">
        <State state={state} />
      </td>
      <th scope="row">
        <PageLink view="device" name={device.client_id}>
          {device.client_id}
        </PageLink>
      </th>
      <td data-title="Since">{sinceWords(device, now.value)}</td>
      <td data-title="Last seen">{age(now.value - Date.parse(device.last_seen))} ago</td>
      <td data-title="Address">{hostOf(device.address)}</td>
      <td data-title="Protocol">{protocolWords(device)}</td>
      <td data-title="In">{device.online && received !== null ? rate(received) : UNKNOWN}</td>
      <td data-title="Out">{outWords(device, sent)}</td>
      <td data-title="Connects" class={isFlapping(device) ? "is-warn" : ""}>
        {device.connects_10min ?? UNKNOWN}
        {isFlapping(device) ? " ▲ flapping" : ""}
      </td>
      <td data-title="Last reason">{state === "online" && device.reason === "connected" ? UNKNOWN : reasonWords(device.reason ?? "", device.keep_alive_s)}</td>
    </tr>
  );
}

/** What presence said at the moment that is shown; the rest was not recorded. */
function Then({ at_ms }: { at_ms: number }) {
  const found = then.value;
  if (!found) return null;
  const counts = { online: 0, session: 0, gone: 0 };
  for (const change of found.changes) counts[stateOf(change)] += 1;
  return (
    <section class="panel">
      <Head counts={counts} meta={`as they were at ${momentWords(at_ms, false)}${found.isComplete ? "" : "; there were more"}`} />
      {found.changes.length === 0 ? (
        <p class="reason">No device had been seen by then, as far as presence is kept.</p>
      ) : (
        <Table label="Devices" titles={["State", "Client", "Since", "Last reason"]}>
          {found.changes.map((change) => (
            <tr key={change.client_id} data-device={change.client_id} data-state={stateOf(change)}>
              <td data-title="State">
                <State state={stateOf(change)} />
              </td>
              <th scope="row">
                <PageLink view="device" name={change.client_id}>
                  {change.client_id}
                </PageLink>
              </th>
              <td data-title="Since">{age(at_ms - Date.parse(change.time))}</td>
              <td data-title="Last reason">{reasonWords(change.reason)}</td>
            </tr>
          ))}
        </Table>
      )}
    </section>
  );
}
