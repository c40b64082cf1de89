/** The frame's second line: pause and play, speed, window, the bar, a moment to type, and the way back to now. */
import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { bindKey } from "../app/keys";
import { serverNow } from "../app/link";
import { address, go } from "../app/router";
import { SPEEDS, speedWords } from "../app/time-state";
import { goLive, goTo, goToMark, goToMessage, jump, play, speed, time, toggle, zoom } from "../app/timeline";
import { TimeBar } from "../parts/TimeBar";
import { parseMoment } from "../time/parse";
import type { Speed } from "../time/replay-clock";
import { WINDOWS } from "../time/windows";

export function TimeRow() {
  useEffect(() => {
    const unbind = [
      bindKey({ key: " ", sign: "Space", words: "Pause or go on; in the past play or stop", run: toggle }),
      bindKey({ key: "l", words: "Live", run: goLive }),
      bindKey({ key: "[", sign: "[ ]", words: "Loss before or after", run: () => goToMark(-1) }),
      bindKey({ key: "]", words: "", run: () => goToMark(1) }),
      bindKey({ key: ",", sign: ", .", words: "One message back or on", run: () => goToMessage(-1) }),
      bindKey({ key: ".", words: "", run: () => goToMessage(1) }),
      bindKey({ key: "-", sign: "− +", words: "Wider or narrower window", run: () => zoom(1) }),
      bindKey({ key: "+", words: "", run: () => zoom(-1) }),
      bindKey({ key: "=", words: "", run: () => zoom(-1) }),
      ...SPEEDS.map((each, index) =>
        bindKey({ key: String(index + 1), sign: "1 … 5", words: index === 0 ? "Replay ×0.1 ×1 ×10 ×60 max" : "", run: () => play(each) }),
      ),
    ];
    return () => unbind.forEach((undo) => undo());
  }, []);
  const { mode } = time.value;
  const { window_ms } = address.value;
  return (
    <div class={`timerow is-${mode}`} role="group" aria-label="Time">
      <div class="controls">
        <PlayButton />
        <label>
          <span class="visually-hidden">Speed of a replay</span>
          <select value={String(speed.value)} onChange={(event) => play(speedOfOption(event.currentTarget.value))}>
            {(SPEEDS.includes(speed.value) ? SPEEDS : [...SPEEDS, speed.value]).map((each) => (
              <option key={each} value={String(each)}>
                {speedWords(each)}
              </option>
            ))}
          </select>
        </label>
        <label>
          <span class="visually-hidden">Window</span>
          <select value={String(window_ms)} onChange={(event) => go({ window_ms: Number(event.currentTarget.value) })}>
            {WINDOWS.map((entry) => (
              <option key={entry.name} value={String(entry.ms)}>
                {entry.words}
              </option>
            ))}
          </select>
        </label>
        <button class="button" aria-label="Wider window" title="Wider window (−)" onClick={() => zoom(1)}>
          −
        </button>
        <button class="button" aria-label="Narrower window" title="Narrower window (+)" onClick={() => zoom(-1)}>
          +
        </button>
      </div>
      <div class="around">
        <button class="button" aria-label="Half a window earlier" title="Half a window earlier" onClick={() => jump(-0.5)}>
          ‹
        </button>
        <TimeBar />
        <button class="button" aria-label="Half a window later" title="Half a window later" disabled={mode === "live"} onClick={() => jump(0.5)}>
          ›
        </button>
      </div>
      <div class="controls">
        <GoToTime />
        <button class="button bordered live-button" aria-pressed={mode === "live"} title="Live (l)" onClick={goLive}>
          <span class="sign ok" aria-hidden="true">
            {mode === "live" ? "●" : "○"}
          </span>
          Live
        </button>
      </div>
    </div>
  );
}

function speedOfOption(value: string): Speed {
  return value === "max" ? "max" : Number(value);
}

const PLAY = "M3 1l8 5-8 5z";
const PAUSE = "M2 1h3v10H2zM7 1h3v10H7z";

function PlayButton() {
  const { mode } = time.value;
  const words = { live: "Pause", paused: "Go on", past: "Replay from here", replaying: "Stop here" }[mode];
  const isRunning = mode === "live" || mode === "replaying";
  return (
    <button class="button" aria-label={words} title={`${words} (Space)`} onClick={toggle}>
      <svg class="icon" width="12" height="12" viewBox="0 0 12 12" aria-hidden="true">
        <path d={isRunning ? PAUSE : PLAY} />
      </svg>
    </button>
  );
}

/** A moment as text: what a log file or a colleague says. */
function GoToTime() {
  const isOpen = useSignal(false);
  const fault = useSignal("");
  const input = useRef<HTMLInputElement>(null);
  const button = useRef<HTMLButtonElement>(null);
  const close = (): void => {
    if (!isOpen.value) return;
    isOpen.value = false;
    fault.value = "";
    button.current?.focus();
  };
  useEffect(() => bindKey({ key: "t", words: "Go to a time", run: () => (isOpen.value = true) }), []);
  useEffect(() => {
    if (!isOpen.value) return;
    input.current?.focus();
    return bindKey({ key: "Escape", words: "", run: close });
  }, [isOpen.value]);
  const submit = (): void => {
    const at_ms = parseMoment(input.current?.value ?? "", serverNow());
    if (at_ms === null) {
      fault.value = "This is no time. Write 03:12, 22 Nov 03:12:07, -15m or 2026-11-22T03:12:07Z.";
      return;
    }
    close();
    goTo(at_ms);
  };
  return (
    <div class="status">
      <button ref={button} class="button" aria-expanded={isOpen.value} aria-label="Go to a time" title="Go to a time (t)" onClick={() => (isOpen.value ? close() : (isOpen.value = true))}>
        <svg class="icon clock" width="14" height="14" viewBox="0 0 14 14" aria-hidden="true">
          <circle cx="7" cy="7" r="5.75" />
          <path d="M7 3.5V7l2.5 1.5" />
        </svg>
      </button>
      {isOpen.value ? (
        <form
          class="popover goto"
          aria-label="Go to a time"
          onSubmit={(event) => {
            event.preventDefault();
            submit();
          }}
        >
          <label for="goto-time">Go to a time</label>
          <div class="line">
            <input id="goto-time" ref={input} type="text" autocomplete="off" spellcheck={false} placeholder="03:12, 22 Nov 03:12:07, -15m" aria-describedby="goto-fault" />
            <button class="button bordered" type="submit">
              Go
            </button>
          </div>
          <p id="goto-fault" role="alert" class={fault.value ? "bad" : ""}>
            {fault.value || "In this browser's time zone, unless another one is written."}
          </p>
        </form>
      ) : null}
    </div>
  );
}
