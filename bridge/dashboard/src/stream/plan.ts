/**
 * From the terms of the filter bar to what the server is asked and what the page sorts out itself.
 * A term with `/`, `+` or `#` is an MQTT topic filter and goes to the server; `client:ID` and bare words are looked at here.
 */
import { FILTERS_MAX, REQUEST_CHARS_MAX } from "../app/limits";

export interface Plan {
  /** MQTT topic filters for the request; `#` when no term is one. */
  topicFilters: string[];
  /** Words that must be part of the topic name, in lower case. */
  words: string[];
  clientIds: string[];
  /** Why a term cannot be used, in words; empty when all is well. */
  faults: string[];
}

/** Terms are parted by spaces, a text in double quotes is one term. */
export function splitTerms(text: string): string[] {
  return [...text.matchAll(/"([^"]*)"|(\S+)/g)].map((match) => match[1] ?? match[2] ?? "").filter(Boolean);
}

export function planOf(terms: string[]): Plan {
  const plan: Plan = { topicFilters: [], words: [], clientIds: [], faults: [] };
  for (const term of terms) {
    if (term.startsWith("client:")) {
      if (term.length > 7) plan.clientIds.push(term.slice(7));
    } else if (/[/+#]/.test(term)) {
      const fault = filterFault(term);
      if (fault) plan.faults.push(fault);
      else plan.topicFilters.push(term);
    } else {
      plan.words.push(term.toLowerCase());
    }
  }
  bound(plan);
  if (plan.topicFilters.length === 0) plan.topicFilters.push("#");
  return plan;
}

/** What is wrong with a topic filter, or null. Source: MQTT 5 §4.7.1. */
export function filterFault(topicFilter: string): string | null {
  const levels = topicFilter.split("/");
  const hash = levels.findIndex((level) => level.includes("#"));
  if (hash >= 0 && levels[hash] !== "#") return `"${topicFilter}": # must be a level of its own`;
  if (hash >= 0 && hash !== levels.length - 1) return `"${topicFilter}": # can only be the last level`;
  if (levels.some((level) => level.includes("+") && level !== "+")) return `"${topicFilter}": + must be a level of its own`;
  return null;
}

/** Whether a message passes what the server was not asked for. */
export function accepts(plan: Plan, topic: string, clientId: string): boolean {
  if (plan.clientIds.length && !plan.clientIds.includes(clientId)) return false;
  if (plan.words.length === 0) return true;
  const name = topic.toLowerCase();
  return plan.words.every((word) => name.includes(word));
}

function bound(plan: Plan): void {
  let chars = 200; // path and the other parameters
  const kept: string[] = [];
  for (const topicFilter of plan.topicFilters) {
    chars += encodeURIComponent(topicFilter).length + 7;
    if (kept.length === FILTERS_MAX || chars > REQUEST_CHARS_MAX) {
      plan.faults.push(`only the first ${kept.length} topic filters fit into one request`);
      break;
    }
    kept.push(topicFilter);
  }
  plan.topicFilters = kept;
}
