/**
 * A list of rows of one height, of which only those on screen exist. It asks for rows by place and shows what has come;
 * the rows are someone else's. Keys move one active row; the list itself has the focus (aria-activedescendant).
 */
import type { ComponentChildren } from "preact";
import { useEffect, useLayoutEffect, useRef } from "preact/hooks";

const OVERSCAN = 8;

export interface VirtualListProps {
  label: string;
  role: "tree" | "listbox";
  total: number;
  /** Place of the first row in `children`. */
  first: number;
  rowHeight: number;
  activeId: string | undefined;
  children: ComponentChildren;
  /** Rows that are wanted. */
  onWindow: (first: number, count: number) => void;
  onKey?: (event: KeyboardEvent) => void;
  onScroll?: (top: number) => void;
  /** Place of the row to bring into sight, when it changes. */
  reveal?: number | undefined;
  /** Scrolls to the top when it changes. */
  resetOn?: unknown;
}

export function VirtualList(props: VirtualListProps) {
  const scroller = useRef<HTMLDivElement>(null);
  const asked = useRef("");
  const { rowHeight, onWindow, total } = props;

  const ask = (): void => {
    const box = scroller.current;
    if (!box) return;
    const first = Math.max(0, Math.floor(box.scrollTop / rowHeight) - OVERSCAN);
    const count = Math.ceil(box.clientHeight / rowHeight) + 2 * OVERSCAN;
    const text = `${first} ${count}`;
    if (text === asked.current) return;
    asked.current = text;
    onWindow(first, count);
  };

  useLayoutEffect(() => {
    const box = scroller.current;
    if (!box) return;
    ask();
    const observer = new ResizeObserver(ask);
    observer.observe(box);
    return () => observer.disconnect();
  }, [rowHeight]);

  useEffect(ask, [total]);

  useEffect(() => {
    if (scroller.current) scroller.current.scrollTop = 0;
  }, [props.resetOn]);

  useEffect(() => {
    const box = scroller.current;
    if (!box || props.reveal === undefined) return;
    const top = props.reveal * rowHeight;
    if (top < box.scrollTop) box.scrollTop = top;
    else if (top + rowHeight > box.scrollTop + box.clientHeight) box.scrollTop = top + rowHeight - box.clientHeight;
  }, [props.reveal]);

  return (
    <div
      ref={scroller}
      class="scroller"
      role={props.role}
      aria-label={props.label}
      aria-activedescendant={props.activeId}
      tabIndex={0}
      onKeyDown={props.onKey}
      onScroll={(event) => {
        ask();
        props.onScroll?.(event.currentTarget.scrollTop);
      }}
    >
      <div class="runway" role="presentation" style={{ height: `${total * rowHeight}px` }}>
        <div class="rows" role="presentation" style={{ transform: `translateY(${props.first * rowHeight}px)` }}>
          {props.children}
        </div>
      </div>
    </div>
  );
}

/** Height of a row by the width of the page: rows of small screens have two lines. */
export function useRowHeight(): number {
  return window.matchMedia("(max-width: 600px)").matches ? 44 : 28;
}
