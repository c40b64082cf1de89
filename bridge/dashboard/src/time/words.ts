/** Losses in words. Pure. */
import { clockTime, grouped } from "./format";
import type { Gap } from "./gaps";

const REASONS: Record<Gap["reason"], string> = {
  overflow: "this page was too slow",
  retention: "they are no longer kept",
  epoch: "the stream began anew",
  unknown: "the server does not know this position any more",
};

export function lossWords(reason: Gap["reason"]): string {
  return REASONS[reason] ?? reason;
}

/** "gap: 41 messages lost, 03:11:58 to 03:12:01, this page was too slow" */
export function gapWords(gap: Gap): string {
  const lost = gap.lost === null ? "messages lost, how many is not known" : gap.lost === 1 ? "1 message lost" : `${grouped(gap.lost)} messages lost`;
  const span = gap.to_ms === null ? `since ${clockTime(gap.from_ms, false)}` : `${clockTime(gap.from_ms, false)} to ${clockTime(gap.to_ms, false)}`;
  return `gap: ${lost}, ${span}, ${lossWords(gap.reason)}`;
}
