/** One stream in full: what it takes and keeps, how fast it commits, its partitions, and its state in Kafka. */
import type { PartitionInfo, StreamInfo } from "../api/types";
import { PARTITIONS_SHOWN_MAX } from "../app/limits";
import { now } from "../app/link";
import { go } from "../app/router";
import { goTo } from "../app/timeline";
import { age, bytes, dayTime, duration, grouped, momentWords, rate } from "../time/format";
import { Fact, Group } from "../parts/Facts";
import { Table } from "../parts/Table";
import { PageLink } from "./SideBar";
import { keptWords, milliseconds, ofLimit, rateWords, STATE_WORDS, storedWords, UNKNOWN } from "./stream-words";

const ACK_WORDS: Record<string, string> = {
  stored: "stored: after the commit",
  received: "received: at once, before it is stored",
};

export function StreamDetails({ stream }: { stream: StreamInfo }) {
  return (
    <>
      <p class="crumbs">
        <PageLink view="streams">Streams</PageLink>
      </p>
      <section class="panel facts-panel">
        <div class="panel-head">
          <h1>{stream.name}</h1>
          <span class="meta">{stream.storage}</span>
        </div>
        <div class="groups">
          <What stream={stream} />
          <HowMuch stream={stream} />
          <HowFast stream={stream} />
          {stream.kafka ? <Kafka stream={stream} /> : null}
          {stream.spool ? <Spool stream={stream} /> : null}
          {stream.dead_letters ? <DeadLetters stream={stream} /> : null}
        </div>
      </section>
      <Partitions partitions={stream.partitions ?? []} />
    </>
  );
}

function What({ stream }: { stream: StreamInfo }) {
  return (
    <Group title="What it takes">
      <Fact name="Topics">
        {stream.topics?.length
          ? stream.topics.map((topicFilter) => (
              <button class="button link mono" key={topicFilter} title="Show these topics in Live" onClick={() => go({ view: "live", name: "", terms: [topicFilter] })}>
                {topicFilter}
              </button>
            ))
          : UNKNOWN}
      </Fact>
      <Fact name="Devices are acknowledged">{ACK_WORDS[stream.ack ?? ""] ?? stream.ack ?? UNKNOWN}</Fact>
      <Fact name="Kept">
        {keptWords(stream)}
        {stream.retention?.bytes ? `, at most ${ofLimit(stream.retention.bytes, null)}` : null}
      </Fact>
      <Fact name="Epoch">
        <span class="mono">{stream.epoch ?? UNKNOWN}</span>
      </Fact>
    </Group>
  );
}

function HowMuch({ stream }: { stream: StreamInfo }) {
  return (
    <Group title="What is there">
      <Fact name="Records">{grouped(stream.records)}</Fact>
      <Fact name="Stored">{storedWords(stream)}</Fact>
      <Fact name="Oldest">
        <Moment time={stream.oldest} />
      </Fact>
      <Fact name="Newest">
        <Moment time={stream.newest} />
      </Fact>
    </Group>
  );
}

function HowFast({ stream }: { stream: StreamInfo }) {
  return (
    <Group title="How fast">
      <Fact name="Rate">{rateWords(stream)}</Fact>
      <Fact name="Bytes">{typeof stream.bytes_rate === "number" ? `${bytes(Math.round(stream.bytes_rate))}/s` : UNKNOWN}</Fact>
      <Fact name="Commit, half of them within">{milliseconds(stream.commit_ms?.p50)}</Fact>
      <Fact name="Commit, 99 of 100 within">{milliseconds(stream.commit_ms?.p99)}</Fact>
      {stream.kafka ? <Fact name="In Kafka, not yet read by us">{typeof stream.lag === "number" ? grouped(stream.lag) : UNKNOWN}</Fact> : null}
    </Group>
  );
}

function Kafka({ stream }: { stream: StreamInfo }) {
  const { kafka } = stream;
  if (!kafka) return null;
  return (
    <Group title="Kafka">
      <Fact name="Topic">
        <span class="mono">{kafka.topic ?? UNKNOWN}</span>
      </Fact>
      <Fact name="State">
        {kafka.state === "up" ? "● " : "▲ "}
        {STATE_WORDS[kafka.state] ?? kafka.state}
        {kafka.since ? `, since ${dayTime(Date.parse(kafka.since), now.value)}` : null}
      </Fact>
      <Fact name="Brokers">{number(kafka.brokers)}</Fact>
      <Fact name="Partitions">{number(kafka.partitions)}</Fact>
      <Fact name="Replicas of each">{number(kafka.replication)}</Fact>
      {kafka.left_out ? <Fact name="Of others, without a topic, left out">{grouped(kafka.left_out)}</Fact> : null}
      {kafka.error ? <Fact name="Last error">{kafka.error}</Fact> : null}
    </Group>
  );
}

const SPOOL_WORDS = { empty: "empty", spooling: "takes what Kafka does not", draining: "moves into Kafka" };

function Spool({ stream }: { stream: StreamInfo }) {
  const { spool } = stream;
  if (!spool) return null;
  return (
    <Group title="Spool">
      <Fact name="State">{SPOOL_WORDS[spool.state] ?? spool.state}</Fact>
      <Fact name="Records">{grouped(spool.records)}</Fact>
      <Fact name="Size">{ofLimit(spool.bytes, spool.bytes_max)}</Fact>
      <Fact name="Oldest">
        <Moment time={spool.oldest} />
      </Fact>
      <Fact name="Rate">{typeof spool.rate === "number" ? rate(spool.rate) : UNKNOWN}</Fact>
      <Fact name="Full in">{typeof spool.full_in_s === "number" ? duration(spool.full_in_s * 1000) : UNKNOWN}</Fact>
    </Group>
  );
}

function DeadLetters({ stream }: { stream: StreamInfo }) {
  const { dead_letters } = stream;
  if (!dead_letters) return null;
  return (
    <Group title="Dead letters">
      <Fact name="Records">{grouped(dead_letters.records)}</Fact>
      <Fact name="Newest">
        <Moment time={dead_letters.newest} />
      </Fact>
      {dead_letters.records > 0 ? (
        <Fact name="List them">
          <span class="mono">headrace streams dead-letters {stream.name}</span>
        </Fact>
      ) : null}
    </Group>
  );
}

function Partitions({ partitions }: { partitions: readonly PartitionInfo[] }) {
  if (partitions.length === 0) return null;
  const shown = partitions.slice(0, PARTITIONS_SHOWN_MAX);
  return (
    <section class="panel partitions">
      <div class="panel-head">
        <h2>Partitions</h2>
        <span class="meta">
          {shown.length < partitions.length ? `${shown.length} of ${grouped(partitions.length)}` : grouped(partitions.length)}
        </span>
      </div>
      <Table label="Partitions" titles={["Partition", "First offset", "Next offset", "Offsets between"]}>
        {shown.map((partition) => (
          <tr key={partition.partition}>
            <th scope="row">{partition.partition}</th>
            <td>{grouped(partition.first_offset)}</td>
            <td>{grouped(partition.next_offset)}</td>
            <td>{grouped(partition.next_offset - partition.first_offset)}</td>
          </tr>
        ))}
      </Table>
    </section>
  );
}

/** A time is a way to that moment. */
function Moment({ time }: { time: string | null | undefined }) {
  const time_ms = Date.parse(time ?? "");
  if (Number.isNaN(time_ms)) return <>{UNKNOWN}</>;
  return (
    <button class="button link" title="Show everything as it was then" onClick={() => showThen(time_ms)}>
      {momentWords(time_ms, false)} · {age(now.value - time_ms)} ago
    </button>
  );
}

function showThen(time_ms: number): void {
  goTo(time_ms);
  go({ view: "live", name: "" }, "replace");
}

function number(value: number | null | undefined): string {
  return typeof value === "number" ? grouped(value) : UNKNOWN;
}
