/** Which moment the page shows when it is not now, in the header: impossible to overlook, and a press on it leads back. */
import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { now, shown, timeFrame } from "../app/link";
import { speedWords } from "../app/time-state";
import { goLive, scrubbed, time, toggle } from "../app/timeline";
import { age, clockTime, dayWords, grouped } from "../time/format";

export function TimeStatus() {
  const state = time.value;
  if (state.mode === "live") return null;
  if (state.mode === "paused") {
    const newer = timeFrame.value?.newer ?? 0;
    return (
      <div class="status moment is-paused">
        <button class="button" title="Go on (Space)" onClick={toggle}>
          <span class="sign" aria-hidden="true">
            ○
          </span>
          Paused · {grouped(newer)} new
        </button>
      </div>
    );
  }
  const at_ms = scrubbed.value ?? shown.value;
  const isReplay = state.mode === "replaying";
  return (
    <div class="status moment is-past">
      <button class="button" title="Go live (l)" onClick={goLive}>
        {isReplay ? (
          <>
            <span class="speed">{speedWords(state.speed)}</span> ·{" "}
          </>
        ) : (
          "Past · "
        )}
        <span class="day">{dayWords(at_ms, now.value)} </span>
        {clockTime(at_ms)} · {age(now.value - at_ms)} ago
      </button>
    </div>
  );
}

/** After so long in one place a replay says again where it is. */
const SPOKEN_MS = 5_000;

/** A live region for changes of time; a replay that runs is not spoken at each step. */
export function SpokenTime() {
  const words = useSignal("");
  const state = time.value;
  const key = state.mode === "past" ? `${state.mode} ${state.at_ms}` : state.mode;
  useEffect(() => {
    const say = (): void => {
      const at = `${dayWords(shown.peek(), now.peek())} ${clockTime(shown.peek(), false)}`;
      words.value = { live: "Live", paused: "Paused", past: `Past, ${at}`, replaying: `Replaying, ${at}` }[state.mode];
    };
    say();
    if (state.mode !== "replaying") return;
    const timer = setInterval(say, SPOKEN_MS);
    return () => clearInterval(timer);
  }, [key]);
  return (
    <span class="visually-hidden" role="status">
      {words.value}
    </span>
  );
}
