/**
 * Single keys that work anywhere on the page but in inputs, and "g s": one key after another. Views register theirs; `?`
 * lists them.
 */

/** A second key that comes later than this is a key of its own. */
const SEQUENCE_MS = 1_500;

export interface Key {
  key: string;
  /** What `?` says about it. */
  words: string;
  /** Shown instead of `key`, for keys that lists handle themselves. */
  sign?: string;
  run?: () => void;
}

const registered: Key[] = [];

/** Adds a key and returns how to take it away. */
export function bindKey(key: Key): () => void {
  registered.push(key);
  return () => {
    const index = registered.indexOf(key);
    if (index >= 0) registered.splice(index, 1);
  };
}

export function boundKeys(): readonly Key[] {
  return registered;
}

export function listenToKeys(): void {
  let first = { key: "", at_ms: 0 };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    const target = event.target as HTMLElement;
    if (event.key !== "Escape" && /^(?:INPUT|TEXTAREA|SELECT)$/.test(target.tagName)) return;
    if (event.key === " " && target.tagName === "BUTTON") return; // Space presses the button
    const find = (key: string): Key | undefined => registered.findLast((entry) => entry.key === key && entry.run);
    const isSecond = first.key !== "" && event.timeStamp - first.at_ms < SEQUENCE_MS;
    const bound = (isSecond ? find(`${first.key} ${event.key}`) : undefined) ?? find(event.key);
    const isFirst = !bound && registered.some((entry) => entry.key.startsWith(`${event.key} `));
    first = { key: isFirst ? event.key : "", at_ms: event.timeStamp };
    if (!bound?.run) return;
    event.preventDefault();
    bound.run();
  });
}
