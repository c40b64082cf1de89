/** Why there is nothing at a moment that has passed: nothing was sent until then, or it is no longer kept. Two facts, two texts. */
import { histogram } from "../app/histogram";
import { shown } from "../app/link";
import { address, go } from "../app/router";
import { goTo } from "../app/timeline";
import { lossAt } from "../time/buckets";
import { momentWords } from "../time/format";
import { lossWords } from "../time/words";

export function NothingThen({ what }: { what: "topic" | "message" }) {
  const oldest_ms = histogram.value?.oldest_ms ?? null;
  const { terms } = address.value;
  if (oldest_ms !== null && shown.value < oldest_ms) {
    const reason = histogram.value && lossAt(histogram.value, shown.value)?.reason;
    const why = reason === "retention" ? "This time is no longer kept." : reason ? `What was here is lost, if there was anything: ${lossWords(reason)}.` : "Nothing had been sent yet.";
    return (
      <div class="reason">
        <p>
          {why} The oldest message that is kept is of {momentWords(oldest_ms, false)}.
        </p>
        <button class="button link" onClick={() => goTo(oldest_ms)}>
          Go there
        </button>
      </div>
    );
  }
  return (
    <div class="reason">
      <p>
        No {what}
        {terms.length ? ` for ${terms.join(" ")}` : ""} until {momentWords(shown.value, false)}.
      </p>
      {terms.length ? (
        <button class="button link" onClick={() => go({ terms: [] })}>
          Clear the filter
        </button>
      ) : null}
    </div>
  );
}
