/**
 * The tail: every message as it comes, newest on top. Scrolling down or choosing a row holds the list and says so loudly;
 * the stream goes on and what is newer is counted.
 */
import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { copyText } from "../app/clipboard";
import { bindKey } from "../app/keys";
import { askDetail, connection, detail, show, stale, tail, tailView } from "../app/link";
import { address } from "../app/router";
import { goTo, inPast, time } from "../app/timeline";
import { useRowHeight, VirtualList } from "../parts/VirtualList";
import type { Detail, TailRow } from "../stream/messages";
import { bytes, clockTime, distance, grouped, rate } from "../time/format";
import { gapWords } from "../time/words";
import { NothingThen } from "./NothingThen";

export function TailPanel() {
  const frame = tail.value;
  const { branch, terms } = address.value;
  const rowHeight = useRowHeight();
  const active = useSignal(0);
  /** The row that keys moved to; a wheel moves the list without it. */
  const revealed = useSignal<number | undefined>(undefined);
  const chosen = useSignal<number | null>(null);
  const isWhole = useSignal(false);
  const heldAt = useSignal<number | null>(null);
  /** Rises when the list goes back to its top. */
  const resets = useSignal(0);

  const hold = (number: number | undefined): void => {
    if (heldAt.value !== null || number === undefined) return;
    heldAt.value = number;
    show({ tail: { ...tailView(), heldAt: number } });
  };
  const resume = (): void => {
    chosen.value = null;
    detail.value = null;
    active.value = 0;
    revealed.value = undefined;
    heldAt.value = null;
    resets.value += 1;
    show({ tail: { ...tailView(), first: 0, heldAt: null } });
  };
  const newest = frame && frame.first === 0 ? frame.rows[0]?.number : undefined;
  const toggle = (): void => (heldAt.value === null ? hold(tail.value?.rows[0]?.number) : resume());

  useEffect(() => bindKey({ key: "tail-enter", sign: "Enter", words: "Show a message, select a branch" }), []);
  useEffect(() => {
    if (chosen.value === null) return;
    return bindKey({ key: "Escape", words: "", run: () => choose(null) });
  }, [chosen.value]);
  // A list that was held is of another branch, filter or moment; pausing the page and going on holds what is there.
  useEffect(resume, [branch, terms.join(" "), inPast.value ? time.value : null]);
  useEffect(() => show({ tail: { ...tailView(), isWholeTail: isWhole.value } }), [isWhole.value]);

  const choose = (number: number | null): void => {
    chosen.value = number;
    if (number === null) {
      detail.value = null;
      return;
    }
    hold(newest ?? frame?.rows[0]?.number);
    askDetail(number);
  };
  const rowAt = (place: number): TailRow | undefined => frame?.rows[place - frame.first];
  const onKey = (event: KeyboardEvent): void => {
    const step = event.key === "ArrowDown" || event.key === "j" ? 1 : event.key === "ArrowUp" || event.key === "k" ? -1 : 0;
    if (step) {
      event.preventDefault();
      hold(newest);
      active.value = Math.max(0, Math.min((frame?.total ?? 1) - 1, active.value + step));
      revealed.value = active.value;
      const row = rowAt(active.value);
      if (chosen.value !== null && row?.kind === "message") choose(row.number);
    } else if (event.key === "Enter") {
      const row = rowAt(active.value);
      if (row?.kind === "message") choose(row.number);
    } else if (event.key === "Home") {
      event.preventDefault();
      resume();
    }
  };

  const isHeld = heldAt.value !== null;
  return (
    <section class="panel tail" aria-busy={stale.value.tail} aria-label="Messages">
      <div class="panel-head">
        <h2>Messages</h2>
        <span class="meta">
          {branch && !isWhole.value ? branch : "all"}
          {frame && !Number.isNaN(frame.rate) ? `, ${rate(frame.rate)}` : null}
        </span>
        {(connection.value?.conflated ?? 0) > 0 ? (
          <span class="meta" title="This browser is too slow for all of them: it gets the latest value of each topic. The log has all.">
            ◇ thinned, {grouped(connection.value?.conflated ?? 0)} left out in 15 s
          </span>
        ) : null}
        <span class="spacer" />
        {branch ? (
          <button class="button" aria-pressed={isWhole.value} onClick={() => (isWhole.value = !isWhole.value)}>
            All topics
          </button>
        ) : null}
        <button class="button" aria-pressed={isHeld} onClick={toggle} aria-label={isHeld ? "Go on with the list" : "Pause the list"} title="Pauses this list only">
          <svg class="icon" width="12" height="12" viewBox="0 0 12 12" aria-hidden="true">
            <path d={isHeld ? "M3 1l8 5-8 5z" : "M2 1h3v10H2zM7 1h3v10H7z"} />
          </svg>
          {isHeld ? "Go on" : "Pause"}
        </button>
      </div>
      {isHeld ? (
        <button class="held" onClick={resume}>
          Paused here · {grouped(frame?.newer ?? 0)} newer ▲
        </button>
      ) : null}
      {frame && frame.total > 0 ? (
        <VirtualList
          label="Messages, newest first"
          role="listbox"
          total={frame.total}
          first={frame.first}
          rowHeight={rowHeight}
          activeId={rowAt(active.value) ? `message-${active.value}` : undefined}
          reveal={revealed.value}
          resetOn={resets.value}
          onKey={onKey}
          onWindow={(first, count) => show({ tail: { ...tailView(), first, count } })}
          onScroll={(top) => {
            if (top > 2) hold(tail.value?.rows[0]?.number);
            else if (top === 0 && heldAt.value !== null && chosen.value === null && active.value === 0) resume();
          }}
        >
          {frame.rows.map((row, index) => {
            const place = frame.first + index;
            return (
              <Row
                key={row.number}
                id={`message-${place}`}
                row={row}
                place={place}
                total={frame.total}
                branch={branch}
                isActive={isHeld && place === active.value}
                isChosen={row.number === chosen.value}
                choose={() => {
                  active.value = place;
                  choose(row.number === chosen.value ? null : row.number);
                }}
              />
            );
          })}
        </VirtualList>
      ) : (
        <Empty />
      )}
      {detail.value && detail.value.number === chosen.value ? <DetailPane message={detail.value} close={() => choose(null)} /> : null}
    </section>
  );
}

function Empty() {
  const frame = tail.value;
  if (!frame || frame.history === "loading") return <p class="reason late">Loading the latest messages</p>;
  if (inPast.value && frame.history === "loaded") return <NothingThen what="message" />;
  if (frame.history === "failed") return <p class="reason">Older messages did not load: {frame.fault}. New ones appear here.</p>;
  return <p class="reason">{address.value.terms.length ? "No message for this filter yet." : "No message yet."} New ones appear here.</p>;
}

interface RowProps {
  id: string;
  row: TailRow;
  place: number;
  total: number;
  branch: string;
  isActive: boolean;
  isChosen: boolean;
  choose: () => void;
}

function Row({ id, row, place, total, branch, isActive, isChosen, choose }: RowProps) {
  const common = { id, role: "option" as const, "aria-posinset": place + 1, "aria-setsize": total, "aria-selected": isChosen };
  if (row.kind === "gap") {
    return (
      <div {...common} class={`row loss ${isActive ? "is-active" : ""}`} data-gap={row.gap.id}>
        <span aria-hidden="true">╳</span>
        <span>{gapWords(row.gap)}</span>
      </div>
    );
  }
  if (row.kind === "skip") {
    return (
      <div {...common} class={`row skip ${isActive ? "is-active" : ""}`} data-skip="">
        <span aria-hidden="true">↷</span>
        <span>
          Not shown: what came while you were away, {clockTime(row.from_ms, false)} to {clockTime(row.to_ms, false)}. It is stored.
        </span>
      </div>
    );
  }
  return (
    <div {...common} class={`row ${isActive ? "is-active" : ""} ${isChosen ? "is-selected" : ""}`} title={`from ${row.clientId || "a client without a name"}`} onClick={choose}>
      <span
        class="time"
        title="Go to this moment"
        onClick={(event) => {
          event.stopPropagation();
          goTo(row.time_ms);
        }}
      >
        {clockTime(row.time_ms)}
      </span>
      <span class="distance">{Number.isNaN(row.distance_ms) ? null : distance(row.distance_ms)}</span>
      <TopicName topic={row.topic} branch={branch} />
      <span class="signs">
        q{row.qos}
        {row.retain ? (
          <span class="retained" title="the publisher set retain">
            {" "}
            R
          </span>
        ) : null}
      </span>
      <span class="payload mono">{row.isTombstone || row.text === "" ? <span class="muted">{row.text || "empty"}</span> : row.text}</span>
      <span class="change">{row.change || null}</span>
    </div>
  );
}

/** The end of a topic says most: the levels before it step back. */
function TopicName({ topic, branch }: { topic: string; branch: string }) {
  const shown = branch && topic.startsWith(`${branch}/`) ? topic.slice(branch.length + 1) : topic;
  const cut = shown.lastIndexOf("/") + 1;
  return (
    <span class="topic" title={topic}>
      <span class="parents">{shown.slice(0, cut) || null}</span>
      <span class="level">{shown.slice(cut)}</span>
    </span>
  );
}

function DetailPane({ message, close }: { message: Detail; close: () => void }) {
  const isCopied = useSignal(false);
  useEffect(() => {
    isCopied.value = false;
  }, [message.number]);
  const properties = Object.entries(message.properties ?? {});
  return (
    <div class="detail" role="region" aria-label="One message">
      <div class="panel-head">
        <h3>{message.topic}</h3>
        <button class="button link" title="Show everything as it was then" onClick={() => goTo(message.time_ms)}>
          {clockTime(message.time_ms)}
        </button>
        <span class="spacer" />
        <button class="button" disabled={message.encoding === "null"} onClick={() => void copyText(message.text).then((isDone) => (isCopied.value = isDone))}>
          {isCopied.value ? "Copied" : "Copy payload"}
        </button>
        <button class="button" aria-label="Close this message" onClick={close}>
          ✕
        </button>
      </div>
      <p class="facts">
        from {message.clientId || "a client without a name"} · QoS {message.qos}
        {message.retain ? " · retained" : ""} · {message.encoding === "null" ? "no payload" : `${message.encoding} · ${bytes(message.size)}`} · stored at {message.place}
        {message.isCut ? " · only the beginning is kept here" : ""}
        {properties.map(([name, value]) => (
          <span key={name}>
            {" "}
            · {name.replaceAll("_", " ")}: {Array.isArray(value) ? value.map((pair: string[]) => pair.join(" = ")).join(", ") : String(value)}
          </span>
        ))}
      </p>
      <pre class="mono" tabIndex={0}>
        {message.text}
      </pre>
    </div>
  );
}
