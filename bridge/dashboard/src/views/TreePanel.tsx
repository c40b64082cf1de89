/** The topic tree: latest value, sparkline, rate and age of every topic on screen. */
import { useSignal } from "@preact/signals";
import { useEffect, useLayoutEffect, useRef } from "preact/hooks";
import { bindKey } from "../app/keys";
import { SILENT_INTERVALS } from "../app/limits";
import { setOpen, show, shown, stale, tree, treeFault } from "../app/link";
import { address, go } from "../app/router";
import { inPast } from "../app/timeline";
import { Sparkline } from "../parts/Sparkline";
import { useRowHeight, VirtualList } from "../parts/VirtualList";
import { NothingThen } from "./NothingThen";
import { SORTS, type Sort } from "../store/tree-view";
import type { TreeRow } from "../stream/messages";
import { age, grouped, rate } from "../time/format";

const SORT_WORDS: Record<Sort, string> = {
  name: "name",
  rate: "rate",
  bytes: "bytes",
  newest: "newest",
  silent: "longest silent",
};

const INDENT_PX = 14;
/** Twisty and some letters stay readable however deep a level is. */
const NAME_PX_MIN = 88;

export function TreePanel() {
  const frame = tree.value;
  const { sort, branch, terms } = address.value;
  const rowHeight = useRowHeight();
  const active = useSignal(0);

  useEffect(() => bindKey({ key: "tree", sign: "↑ ↓ j k", words: "Rows of the tree or the tail" }), []);
  useEffect(() => bindKey({ key: "tree-open", sign: "← →", words: "Close or open a level" }), []);

  const rowAt = (place: number): TreeRow | undefined => frame?.rows[place - frame.first];
  const move = (place: number): void => {
    active.value = Math.max(0, Math.min((frame?.total ?? 1) - 1, place));
  };
  const select = (path: string): void => go({ branch: path === branch ? "" : path });

  const onKey = (event: KeyboardEvent): void => {
    const row = rowAt(active.value);
    const handled = ((): boolean => {
      switch (event.key) {
        case "ArrowDown":
        case "j":
          move(active.value + 1);
          return true;
        case "ArrowUp":
        case "k":
          move(active.value - 1);
          return true;
        case "Home":
          move(0);
          return true;
        case "End":
          move((frame?.total ?? 1) - 1);
          return true;
        case "ArrowRight":
          if (row?.hasChildren && !row.isOpen) setOpen(row.path, true);
          else move(active.value + 1);
          return true;
        case "ArrowLeft":
          if (row?.hasChildren && row.isOpen) setOpen(row.path, false);
          else move(parentPlace(frame?.rows ?? [], frame?.first ?? 0, active.value));
          return true;
        case "Enter":
          if (row) select(row.path);
          return true;
        default:
          return false;
      }
    })();
    if (handled) event.preventDefault();
  };

  return (
    <section class="panel tree" aria-busy={stale.value.tree} aria-label="Topics">
      <div class="panel-head">
        <h2>Topics</h2>
        <span class="meta">{frame && !treeFault.value ? grouped(frame.topics) : ""}</span>
        <span class="spacer" />
        <label>
          <span class="visually-hidden">Sort topics by</span>
          <select value={sort} onChange={(event) => go({ sort: event.currentTarget.value as Sort }, "replace")}>
            {SORTS.map((name) => (
              <option value={name} key={name}>
                {`Sort: ${SORT_WORDS[name]}`}
              </option>
            ))}
          </select>
        </label>
      </div>
      {frame && frame.total > 0 && !treeFault.value ? (
        <VirtualList
          label="Topics"
          role="tree"
          total={frame.total}
          first={frame.first}
          rowHeight={rowHeight}
          activeId={rowAt(active.value) ? rowId(active.value) : undefined}
          reveal={active.value}
          onKey={onKey}
          onWindow={(first, count) => show({ tree: { first, count } })}
          resetOn={terms.join(" ")}
        >
          {frame.rows.map((row, index) => {
            const place = frame.first + index;
            return (
              <Row
                key={row.path}
                id={rowId(place)}
                row={row}
                isActive={place === active.value}
                isSelected={row.path === branch}
                onSelect={() => {
                  active.value = place;
                  select(row.path);
                }}
              />
            );
          })}
        </VirtualList>
      ) : (
        <Empty isLoading={!frame} terms={terms} />
      )}
    </section>
  );
}

function Empty({ isLoading, terms }: { isLoading: boolean; terms: string[] }) {
  const fault = treeFault.value;
  if (fault) {
    const isAbsent = fault.startsWith("not available");
    return <p class="reason">{isAbsent ? `The topics of a moment that has passed are ${fault}.` : `The topics of this moment did not load: ${fault}`}</p>;
  }
  if (isLoading || !tree.value?.isEmpty) return <p class="reason late">Loading topics</p>;
  if (inPast.value) return <NothingThen what="topic" />;
  return (
    <div class="reason">
      <p>No topic has a stored message for {terms.join(" ")}.</p>
      <button class="button link" onClick={() => go({ terms: [] })}>
        Clear the filter
      </button>
    </div>
  );
}

function parentPlace(rows: readonly TreeRow[], first: number, place: number): number {
  const level = rows[place - first]?.level ?? 0;
  for (let index = place - 1; index >= first; index -= 1) if ((rows[index - first]?.level ?? 0) < level) return index;
  return place;
}

const rowId = (place: number): string => `topic-${place}`;

interface RowProps {
  id: string;
  row: TreeRow;
  isActive: boolean;
  isSelected: boolean;
  onSelect: () => void;
}

function Row({ id, row, isActive, isSelected, onSelect }: RowProps) {
  const classes = ["row", row.hasChildren ? "is-branch" : "", row.isTopic ? "is-topic" : "", isActive ? "is-active" : "", isSelected ? "is-selected" : ""];
  return (
    <div
      id={id}
      class={classes.filter(Boolean).join(" ")}
      role="treeitem"
      aria-level={row.level + 1}
      aria-posinset={row.position}
      aria-setsize={row.siblings}
      aria-expanded={row.hasChildren ? row.isOpen : undefined}
      aria-selected={isSelected}
      title={row.path}
      onClick={onSelect}
      onDblClick={() => row.hasChildren && setOpen(row.path, !row.isOpen)}
    >
      <span class="name" style={{ paddingLeft: `${row.level * INDENT_PX}px`, minWidth: `${row.level * INDENT_PX + NAME_PX_MIN}px` }}>
        <button
          class={`twisty ${row.isOpen ? "is-open" : ""}`}
          tabIndex={-1}
          aria-hidden="true"
          style={{ visibility: row.hasChildren ? "visible" : "hidden" }}
          onClick={(event) => {
            event.stopPropagation();
            setOpen(row.path, !row.isOpen);
          }}
        >
          ▸
        </button>
        <span class="label">{row.name === "" ? "(empty level)" : row.name}</span>
      </span>
      {row.isTopic ? <Value text={row.value} /> : <span class="value">{row.isOpen ? null : topicsWords(row.topics)}</span>}
      <Sparkline points={row.spark} />
      <span class="rate">
        <span class="share" style={{ width: `${Math.round(row.share * 100)}%` }} />
        <span class="text">{rate(row.rate)}</span>
      </span>
      <Age row={row} />
    </div>
  );
}

function topicsWords(topics: number): string {
  return topics === 1 ? "1 topic" : `${grouped(topics)} topics`;
}

/** A value that changes all the time does not flash: it would never rest, and each flash repaints its row 24 times. */
const FLASH_MS = 2_000;

/** The value fades from accent when it changes. */
function Value({ text }: { text: string }) {
  const element = useRef<HTMLSpanElement>(null);
  const shown = useRef(text);
  const changedAt = useRef(0);
  useLayoutEffect(() => {
    if (shown.current === text) return;
    shown.current = text;
    const at = performance.now();
    const rested_ms = at - changedAt.current;
    changedAt.current = at;
    if (rested_ms < FLASH_MS || window.matchMedia("(prefers-reduced-motion: reduce)").matches) return;
    const accent = getComputedStyle(document.documentElement).getPropertyValue("--accent");
    element.current?.animate([{ color: accent }, {}], { duration: 400, easing: "ease-out" });
  }, [text]);
  return (
    <span class="value" ref={element}>
      {text || null}
    </span>
  );
}

function Age({ row }: { row: TreeRow }) {
  const elapsed_ms = shown.value - row.lastTime_ms;
  const isSilent = elapsed_ms > row.interval_ms * SILENT_INTERVALS && elapsed_ms > 2000;
  const words = age(elapsed_ms);
  return (
    <span class={`age ${isSilent ? "is-silent" : ""}`} title={isSilent ? `silent for ${words}, usually every ${age(Math.max(1000, row.interval_ms))}` : undefined}>
      {isSilent ? `▲ ${words}` : words}
    </span>
  );
}
