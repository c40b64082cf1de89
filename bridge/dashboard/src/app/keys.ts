/** Single keys that work anywhere on the page but in inputs. Views register theirs; `?` lists them. */

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
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    const target = event.target as HTMLElement;
    if (event.key !== "Escape" && /^(?:INPUT|TEXTAREA|SELECT)$/.test(target.tagName)) return;
    if (event.key === " " && target.tagName === "BUTTON") return; // Space presses the button
    const bound = registered.findLast((entry) => entry.key === event.key && entry.run);
    if (!bound?.run) return;
    event.preventDefault();
    bound.run();
  });
}
