/** Brand, filter bar, rate, state of the connection, time zone, theme, keys. */
import { useSignal, useSignalEffect } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { bindKey, boundKeys } from "../app/keys";
import { connection, gaps, now, reconnect, tree } from "../app/link";
import { address, go } from "../app/router";
import { theme, toggleTheme } from "../app/theme";
import { hasCaughtUp, time } from "../app/timeline";
import { splitTerms } from "../stream/plan";
import { grouped, rate, zoneName } from "../time/format";
import { statusOf } from "./status";
import { TimeStatus } from "./TimeStatus";

export function Header() {
  const frame = tree.value;
  return (
    <header class="header">
      <a class="brand" href="./" aria-label="Headrace, everything, live">
        <Mark />
        <span>headrace</span>
      </a>
      <FilterBar />
      <span class="spacer" />
      <div class="facts">
        {frame && !frame.isEmpty && !Number.isNaN(frame.rate) ? (
          <span>
            <b>{rate(frame.rate).replace("/", "msg/")}</b>
          </span>
        ) : null}
        <span class="zone" title="Times on this page are in this browser's time zone">
          {zoneName(new Date(now.value).getTimezoneOffset())}
        </span>
      </div>
      <TimeStatus />
      <ConnectionStatus />
      <KeyList />
      <button class="button" onClick={toggleTheme} aria-label={`Theme: ${theme.value}. Change to ${theme.value === "dark" ? "light" : "dark"}`} title="Dark or light">
        ◐
      </button>
    </header>
  );
}

function Mark() {
  return (
    <svg width="22" height="22" viewBox="0 0 32 32" fill="none" stroke-width="3.5" stroke-linecap="round" aria-hidden="true">
      <path class="stroke-accent" d="M4 11c4-5 8-5 12 0s8 5 12 0" />
      <path class="stroke-ok" d="M4 21c4-5 8-5 12 0s8 5 12 0" />
    </svg>
  );
}

function FilterBar() {
  const input = useRef<HTMLInputElement>(null);
  const text = useSignal(termsText(address.value.terms));
  const sent = useRef(text.value);
  // Back, forward and other views change the terms from outside; what is being typed is left alone.
  useSignalEffect(() => {
    const shown = termsText(address.value.terms);
    if (shown === sent.current) return;
    sent.current = shown;
    text.value = shown;
  });
  useEffect(
    () =>
      bindKey({
        key: "/",
        words: "Filter",
        run: () => {
          input.current?.focus();
          input.current?.select();
        },
      }),
    [],
  );
  const change = (value: string): void => {
    text.value = value;
    const terms = splitTerms(value);
    sent.current = termsText(terms);
    go({ terms }, "replace");
  };
  return (
    <div class="filter" role="search">
      <input
        ref={input}
        type="text"
        spellcheck={false}
        autocomplete="off"
        placeholder="Filter: sensors/#, client:p7, or part of a topic"
        aria-label="Filter messages: a topic filter, client:ID, or part of a topic's name"
        value={text.value}
        onInput={(event) => change(event.currentTarget.value)}
        onKeyDown={(event) => {
          if (event.key !== "Escape") return;
          if (text.value) change("");
          else input.current?.blur();
        }}
      />
      <span class="side">
        {text.value ? (
          <button class="button" aria-label="Clear the filter" onClick={() => change("")}>
            ✕
          </button>
        ) : (
          <span class="key" aria-hidden="true">
            /
          </span>
        )}
      </span>
    </div>
  );
}

function termsText(terms: readonly string[]): string {
  return terms.map((term) => (term.includes(" ") ? `"${term}"` : term)).join(" ");
}

function ConnectionStatus() {
  const isOpen = useSignal(false);
  const state = connection.value;
  const status = statusOf(state, now.value - (state?.clockOffset_ms ?? 0));
  // Beside another moment the connection only speaks when something is wrong with it: it is not what the page shows.
  const isLive = time.value.mode === "live";
  const isQuiet = !isLive && status.isWell;
  const words = isLive && hasCaughtUp.value && status.tone === "ok" ? "Caught up with now" : status.words;
  useEffect(() => bindKey({ key: "Escape", words: "Close", run: () => (isOpen.value = false) }), []);
  return (
    <div
      class={`status ${isQuiet ? "is-quiet" : ""}`}
      data-phase={state?.phase}
      data-received={state?.received}
      data-repeated={state?.repeated}
      data-opened={state?.opened}
    >
      <button
        class="button"
        aria-expanded={isOpen.value}
        aria-label={isQuiet ? "Connected" : undefined}
        title={isQuiet ? "Connected" : undefined}
        onClick={() => (status.canRetry ? reconnect() : (isOpen.value = !isOpen.value))}
      >
        <span class={`sign ${status.tone}`} aria-hidden="true">
          {isLive ? status.sign : status.isWell ? "○" : status.sign}
        </span>
        {isQuiet ? null : words}
        {status.canRetry ? <b>· Now</b> : null}
      </button>
      <Spoken words={isQuiet ? "" : words.replace(/,? (?:<|\d).*$/, "")} />
      {isOpen.value && state ? (
        <section class="popover" aria-label="Connection">
          <h2>This page's stream</h2>
          <dl>
            <dt>Messages received</dt>
            <dd>{grouped(state.received)}</dd>
            <dt>Repeats left out</dt>
            <dd>{grouped(state.repeated)}</dd>
            <dt>Losses</dt>
            <dd>{grouped(gaps.value.length)}</dd>
            <dt>Times connected</dt>
            <dd>{grouped(state.opened)}</dd>
            <dt>Server's clock</dt>
            <dd>{clockWords(state.clockOffset_ms)}</dd>
          </dl>
          <p>After a cut the page goes on exactly where it was. If the server cannot give everything, the loss is shown as a loss.</p>
          <p>If this browser is too slow, it gets the latest value of each topic; the log still has all of them.</p>
        </section>
      ) : null}
    </div>
  );
}

/** A live region that speaks when the state changes, not at each new delay. */
function Spoken({ words }: { words: string }) {
  return (
    <span class="visually-hidden" role="status">
      {words}
    </span>
  );
}

function clockWords(offset_ms: number): string {
  if (Math.abs(offset_ms) < 50) return "the same as here";
  return `${(Math.abs(offset_ms) / 1000).toFixed(1)} s ${offset_ms > 0 ? "ahead of" : "behind"} this browser's`;
}

function KeyList() {
  const isOpen = useSignal(false);
  useEffect(() => {
    const unbind = [
      bindKey({ key: "?", words: "Keys", run: () => (isOpen.value = !isOpen.value) }),
      bindKey({ key: "Escape", words: "", run: () => (isOpen.value = false) }),
    ];
    return () => unbind.forEach((undo) => undo());
  }, []);
  useEffect(() => {
    if (!isOpen.value) return;
    return bindKey({ key: "Escape", words: "", run: () => (isOpen.value = false) });
  }, [isOpen.value]);
  const listed = boundKeys().filter((entry, index, all) => entry.words && all.findIndex((other) => other.words === entry.words) === index);
  return (
    <div class="status keys">
      <button class="button" aria-expanded={isOpen.value} aria-label="Keys" title="Keys" onClick={() => (isOpen.value = !isOpen.value)}>
        ?
      </button>
      {isOpen.value ? (
        <section class="popover" aria-label="Keys">
          <h2>Keys</h2>
          <dl>
            {listed.map((entry) => (
              <>
                <dt>{entry.words}</dt>
                <dd>
                  <span class="key">{entry.sign ?? entry.key}</span>
                </dd>
              </>
            ))}
          </dl>
        </section>
      ) : null}
    </div>
  );
}
