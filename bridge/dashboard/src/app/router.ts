/**
 * What is on screen as an address: everything that a person chose stands in the query, so that a reload or a link shows it.
 * `f` filter terms, `b` selected branch, `w` window, `sort` order of the tree, `welcome` the first screen again.
 */
import { signal } from "@preact/signals";
import { SORTS, type Sort } from "../store/tree-view";
import { WINDOWS, windowOf } from "../time/windows";

export interface Address {
  terms: string[];
  branch: string;
  window_ms: number;
  sort: Sort;
  isWelcome: boolean;
}

const DEFAULT_WINDOW = "15m";

export function parseAddress(search: string): Address {
  const query = new URLSearchParams(search);
  const sort = query.get("sort") as Sort | null;
  return {
    terms: query.getAll("f").filter(Boolean),
    branch: query.get("b") ?? "",
    window_ms: windowOf(query.get("w")) ?? windowOf(DEFAULT_WINDOW) ?? 0,
    sort: sort && SORTS.includes(sort) ? sort : "name",
    isWelcome: query.has("welcome"),
  };
}

/** The query for an address; parameters that the page does not know stay as they are. */
export function formatAddress(address: Address, search: string): string {
  const query = new URLSearchParams(search);
  query.delete("f");
  for (const term of address.terms) query.append("f", term);
  const set = (name: string, value: string): void => (value ? query.set(name, value) : query.delete(name));
  set("b", address.branch);
  const name = WINDOWS.find((entry) => entry.ms === address.window_ms)?.name ?? "";
  set("w", name === DEFAULT_WINDOW ? "" : name);
  set("sort", address.sort === "name" ? "" : address.sort);
  if (!address.isWelcome) query.delete("welcome");
  const text = query.toString().replaceAll("%2F", "/");
  return text ? `?${text}` : "";
}

export const address = signal<Address>(parseAddress(typeof location === "undefined" ? "" : location.search));

/** A change of view is an entry of the history; typing replaces the entry. */
export function go(change: Partial<Address>, how: "push" | "replace" = "push"): void {
  const next = { ...address.value, ...change };
  const search = formatAddress(next, location.search);
  if (search !== location.search) {
    const url = location.pathname + search;
    if (how === "push") history.pushState(null, "", url);
    else history.replaceState(null, "", url);
  }
  address.value = next;
}

export function listenToHistory(): void {
  window.addEventListener("popstate", () => {
    address.value = parseAddress(location.search);
  });
}
