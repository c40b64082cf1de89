/** The Streams view: every stream with rate, size, age, commit times and Kafka; and the page of one stream. Loaded on demand. */
import "../style/streams.css";
import { signal } from "@preact/signals";
import { ApiClient, faultOf } from "../api/client";
import type { StreamInfo, SystemInfo } from "../api/types";
import { STREAMS_MS } from "../app/limits";
import { now, shown } from "../app/link";
import { address } from "../app/router";
import { goLive, inPast } from "../app/timeline";
import { Table } from "../parts/Table";
import { momentWords } from "../time/format";
import { PageLink } from "./SideBar";
import { StreamDetails } from "./StreamDetails";
import { usePolled } from "./polled";
import { kafkaWords, keptWords, milliseconds, newestWords, oldestWords, rateWords, storedShare, storedWords, UNKNOWN, warningsOf } from "./stream-words";

const api = new ApiClient(new URL("api/v1/", document.baseURI).href);

const streams = signal<StreamInfo[] | null>(null);
const system = signal<SystemInfo | null>(null);
const fault = signal("");

export default function Streams() {
  usePolled(STREAMS_MS, true, [], async (abort) => {
    try {
      const [list, server] = await Promise.all([api.streams(abort), api.system(abort)]);
      streams.value = list;
      system.value = server;
      fault.value = "";
    } catch (error) {
      if (!abort.aborted) fault.value = faultOf(error);
    }
  });
  const { view, name } = address.value;
  const list = streams.value;
  return (
    <main class="streams">
      <NotThen />
      {fault.value ? (
        <p class="notice fault" role="alert">
          <span class="sign bad">✕</span>
          <span class="text">
            {list ? "These figures are not new: the server did not answer" : "The streams did not load"}: {fault.value}. Asking again.
          </span>
        </p>
      ) : null}
      {!list ? <p class="reason late">Loading streams</p> : view === "stream" ? <One list={list} name={name} /> : <All list={list} />}
    </main>
  );
}

/** Everything else on the page may show another moment; this view cannot. */
function NotThen() {
  if (!inPast.value) return null;
  return (
    <p class="notice past">
      <span class="text">Streams are shown as they are now, not as they were at {momentWords(shown.value, false)}.</span>
      <button class="button bordered" onClick={goLive}>
        Go live
      </button>
    </p>
  );
}

function One({ list, name }: { list: readonly StreamInfo[]; name: string }) {
  const stream = list.find((entry) => entry.name === name);
  if (stream) {
    return (
      <>
        <Warnings list={[stream]} />
        <StreamDetails stream={stream} />
      </>
    );
  }
  return (
    <div class="reason">
      <h1>{name || "Stream"}</h1>
      <p>There is no stream of this name on this server.</p>
      <PageLink view="streams">All streams</PageLink>
    </div>
  );
}

function Warnings({ list }: { list: readonly StreamInfo[] }) {
  const warnings = warningsOf(list, system.value, now.value);
  return (
    <>
      {warnings.map((warning) => (
        <p class={`notice ${warning.tone === "bad" ? "fault" : warning.tone === "warn" ? "warning" : ""}`} key={warning.key}>
          <span class={`sign ${warning.tone === "info" ? "wait" : warning.tone}`} aria-hidden="true">
            {warning.tone === "bad" ? "✕" : warning.tone === "warn" ? "▲" : "◐"}
          </span>
          <span class="text">{warning.text}</span>
        </p>
      ))}
    </>
  );
}

function All({ list }: { list: readonly StreamInfo[] }) {
  return (
    <>
      <section class="panel">
        <div class="panel-head">
          <h1>Streams</h1>
          <span class="meta">{list.length === 1 ? "1 stream" : `${list.length} streams`}, in the order in which topics look for theirs</span>
        </div>
        <Table label="Streams" titles={["Stream", "Rate", "Stored", "Kept", "Oldest", "Newest", "Commit p99", "Dead letters", "Kafka"]}>
          {list.map((stream) => (
            <Row key={stream.name} stream={stream} />
          ))}
        </Table>
      </section>
      <Warnings list={list} />
    </>
  );
}

function Row({ stream }: { stream: StreamInfo }) {
  const dead = stream.dead_letters?.records;
  return (
    <tr data-stream={stream.name}>
      <th scope="row">
        <PageLink view="stream" name={stream.name}>
          {stream.name}
        </PageLink>
        <span class="storage">{stream.storage}</span>
      </th>
      <td data-title="Rate">{rateWords(stream)}</td>
      <td data-title="Stored">
        <Stored stream={stream} />
      </td>
      <td data-title="Kept">{keptWords(stream)}</td>
      <td data-title="Oldest">{oldestWords(stream, now.value)}</td>
      <td data-title="Newest">{newestWords(stream, now.value)}</td>
      <td data-title="Commit p99">{milliseconds(stream.commit_ms?.p99)}</td>
      <td data-title="Dead letters" class={dead ? "is-bad" : ""}>
        {typeof dead === "number" ? `${dead ? "▲ " : ""}${dead.toLocaleString("en-US")}` : UNKNOWN}
      </td>
      <td data-title="Kafka" class={isTroubled(stream) ? "is-warn" : ""}>
        {isTroubled(stream) ? "▲ " : ""}
        {kafkaWords(stream)}
      </td>
    </tr>
  );
}

function isTroubled(stream: StreamInfo): boolean {
  return stream.kafka !== undefined && stream.kafka !== null && (stream.kafka.state !== "up" || (stream.kafka.mismatch?.length ?? 0) > 0);
}

function Stored({ stream }: { stream: StreamInfo }) {
  const share = storedShare(stream);
  return (
    <>
      {storedWords(stream)}
      {share === null ? null : (
        <span class="meter" aria-hidden="true">
          <span style={{ width: `${Math.max(2, share * 100)}%` }} />
        </span>
      )}
    </>
  );
}
