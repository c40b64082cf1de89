/** Dark and light: the system's choice, until a person presses ◐; that choice is kept in this browser. */
import { signal } from "@preact/signals";

export type Theme = "dark" | "light";

const KEY = "headrace.theme";
const prefersLight = window.matchMedia("(prefers-color-scheme: light)");

function stored(): Theme | null {
  try {
    const value = localStorage.getItem(KEY);
    return value === "dark" || value === "light" ? value : null;
  } catch (error) {
    if (error instanceof DOMException) return null; // storage is switched off: the system's choice
    throw error;
  }
}

let chosen = stored();
/** The theme on screen. */
export const theme = signal<Theme>(current());

function current(): Theme {
  return chosen ?? (prefersLight.matches ? "light" : "dark");
}

function apply(): void {
  if (chosen) document.documentElement.dataset["theme"] = chosen;
  else delete document.documentElement.dataset["theme"];
  theme.value = current();
}

export function startTheme(): void {
  apply();
  prefersLight.addEventListener("change", apply);
}

/** The other theme; when that is what the system wants, the page follows the system again. */
export function toggleTheme(): void {
  const next: Theme = theme.value === "dark" ? "light" : "dark";
  const system: Theme = prefersLight.matches ? "light" : "dark";
  chosen = next === system ? null : next;
  try {
    if (chosen) localStorage.setItem(KEY, chosen);
    else localStorage.removeItem(KEY);
  } catch (error) {
    if (!(error instanceof DOMException)) throw error; // storage is switched off: it holds until the page is closed
  }
  apply();
}

/** A colour token as it is now, for canvases. */
export function colour(token: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${token}`).trim();
}
