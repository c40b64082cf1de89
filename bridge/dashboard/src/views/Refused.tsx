/** Devices that did not get in, with the reason: the newcomer's typing error is on the screen soon after it was made. */
import "../style/refused.css";
import { useSignal } from "@preact/signals";
import { ApiClient, faultOf } from "../api/client";
import { REFUSED_MS, REFUSED_RECORDS } from "../app/limits";
import { now } from "../app/link";
import { goTo } from "../app/timeline";
import { dayTime, grouped } from "../time/format";
import { countedRefusal, refusalsOf, type Refusal } from "./refusals";
import { UNKNOWN } from "./device-words";
import { usePolled } from "./polled";

const api = new ApiClient(new URL("api/v1/", document.baseURI).href);

interface Props {
  /** The moment that is shown; null: now. */
  at_ms: number | null;
  /** What stands there while nobody was refused; without it nothing does, not even the title. */
  none?: string;
}

export function Refused({ at_ms, none }: Props) {
  const found = useSignal<{ refusals: Refusal[]; leftOut: number } | null>(null);
  const fault = useSignal("");
  usePolled(REFUSED_MS, at_ms === null, [at_ms], async (signal) => {
    try {
      const range = at_ms === null ? { from: "-24h" } : { to: new Date(at_ms + 1).toISOString() };
      found.value = refusalsOf((await api.latestRecords("system", ["$server/connect_refused"], REFUSED_RECORDS, { ...range, signal })).records);
      fault.value = "";
    } catch (error) {
      if (!signal.aborted) fault.value = faultOf(error);
    }
  });
  const refusals = found.value?.refusals ?? [];
  if (!none && !refusals.length) return null;
  return (
    <section class="panel refused">
      <div class="panel-head">
        <h2>Refused</h2>
        {refusals.length ? <span class="meta">newest first{at_ms === null ? ", of 24 h" : ""}</span> : null}
      </div>
      {fault.value ? <p class="reason">Refused devices did not load: {fault.value}.</p> : null}
      {!refusals.length && !fault.value ? <p class="reason">{none}</p> : null}
      <ol>
        {refusals.map((refusal) => (
          <li key={refusal.key}>
            <button class="button link mono" title="Show everything as it was then" onClick={() => goTo(refusal.time_ms)}>
              {dayTime(refusal.time_ms, now.value)}
            </button>
            <span class="mono">{refusal.host}</span>
            <span class="who">{refusal.clientId || UNKNOWN}</span>
            <span class="why">{countedRefusal(refusal)}</span>
          </li>
        ))}
      </ol>
      {found.value?.leftOut ? <p class="reason">There were more: {grouped(found.value.leftOut)} were not recorded.</p> : null}
    </section>
  );
}
