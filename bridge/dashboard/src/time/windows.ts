/** The windows that plots can show. */
export const WINDOWS = [
  { name: "5m", ms: 5 * 60_000, words: "5 min" },
  { name: "15m", ms: 15 * 60_000, words: "15 min" },
  { name: "1h", ms: 3_600_000, words: "1 h" },
  { name: "24h", ms: 86_400_000, words: "24 h" },
] as const;

export function windowOf(name: string | null): number | null {
  return WINDOWS.find((entry) => entry.name === name)?.ms ?? null;
}

export function windowWords(ms: number): string {
  return WINDOWS.find((entry) => entry.ms === ms)?.words ?? "";
}
