/**
 * What is on screen as an address: everything that a person chose stands in the path and the query, so that a reload or a
 * link shows it. `f` filter terms, `b` selected branch, `t` moment, `w` window, `x` speed of a replay, `sort` order of the
 * tree, `name` of the stream (a device is named by `id`), `welcome` the first screen again.
 */
import { signal } from "@preact/signals";
import { SORTS, type Sort } from "../store/tree-view";
import { WINDOWS, windowOf } from "../time/windows";
import { keptMoment, speedOf } from "./time-state";

/** The last part of a path; "live" stands at the root. */
export const VIEWS = ["live", "topic", "devices", "device", "streams", "stream", "boards", "board", "system"] as const;
export type View = (typeof VIEWS)[number];

export interface Address {
  view: View;
  /** What the view is about: a stream, a topic, a device. */
  name: string;
  terms: string[];
  branch: string;
  /** A moment as text, empty for now. */
  t: string;
  /** The speed of a replay as text, empty for none. */
  x: string;
  window_ms: number;
  sort: Sort;
  isWelcome: boolean;
}

const DEFAULT_WINDOW = "15m";

export function parseAddress(path: string, search: string): Address {
  const query = new URLSearchParams(search);
  const sort = query.get("sort") as Sort | null;
  const t = keptMoment(query.get("t"));
  const x = query.get("x") ?? "";
  const view = viewOf(path);
  const name = query.get(view === "device" ? "id" : "name") ?? "";
  return {
    view,
    name,
    terms: query.getAll("f").filter(Boolean),
    // A link to a topic shows that branch.
    branch: query.get("b") ?? (view === "topic" ? name : ""),
    t,
    x: t && speedOf(x) !== null ? x : "",
    window_ms: windowOf(query.get("w")) ?? windowOf(DEFAULT_WINDOW) ?? 0,
    sort: sort && SORTS.includes(sort) ? sort : "name",
    isWelcome: query.has("welcome"),
  };
}

function viewOf(path: string): View {
  const last = path.slice(path.lastIndexOf("/") + 1);
  return VIEWS.find((view) => view === last && view !== "live") ?? "live";
}

/** The path for a view, beside the current one: the page may stand below a root path. */
export function formatPath(view: View, path: string): string {
  return path.slice(0, path.lastIndexOf("/") + 1) + (view === "live" ? "" : view);
}

/** The query for an address; parameters that the page does not know stay as they are. */
export function formatSearch(address: Address, search: string): string {
  const query = new URLSearchParams(search);
  query.delete("f");
  for (const term of address.terms) query.append("f", term);
  const set = (name: string, value: string): void => (value ? query.set(name, value) : query.delete(name));
  set("name", address.view === "device" ? "" : address.name);
  set("id", address.view === "device" ? address.name : "");
  set("b", address.branch);
  set("t", address.t);
  set("x", address.t ? address.x : "");
  const window = WINDOWS.find((entry) => entry.ms === address.window_ms)?.name ?? "";
  set("w", window === DEFAULT_WINDOW ? "" : window);
  set("sort", address.sort === "name" ? "" : address.sort);
  if (!address.isWelcome) query.delete("welcome");
  const text = query.toString().replaceAll("%2F", "/").replaceAll("%3A", ":");
  return text ? `?${text}` : "";
}

const isPage = typeof location !== "undefined";
export const address = signal<Address>(parseAddress(isPage ? location.pathname : "/", isPage ? location.search : ""));

/** Path and query of the address with a change. */
export function linkTo(change: Partial<Address>): string {
  const next = { ...address.value, ...change };
  return formatPath(next.view, location.pathname) + formatSearch(next, location.search);
}

/** A change of view or time is an entry of the history; typing and dragging replace the entry. */
export function go(change: Partial<Address>, how: "push" | "replace" = "push"): void {
  const url = linkTo(change);
  if (url !== location.pathname + location.search) {
    if (how === "push") history.pushState(null, "", url);
    else history.replaceState(null, "", url);
  }
  address.value = { ...address.value, ...change };
}

export function listenToHistory(): void {
  window.addEventListener("popstate", () => {
    address.value = parseAddress(location.pathname, location.search);
  });
}
