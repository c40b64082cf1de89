/** Bars below the header: what is wrong with the connection or the filter, and the first message of a new server. */
import { connection, hasWorkerFailed, openedAt_ms, reconnect, timeFrame, tree } from "../app/link";
import { TOPICS_MAX } from "../app/limits";
import { inPast, timeFault } from "../app/timeline";
import type { FirstMessage } from "../stream/messages";
import { duration, grouped, momentWords } from "../time/format";

export function Notices() {
  const state = connection.value;
  const treeFrom_ms = timeFrame.value?.treeFrom_ms ?? null;
  const overflowed = tree.value?.overflowed ?? 0;
  return (
    <>
      {hasWorkerFailed.value ? (
        <p class="notice fault" role="alert">
          <span class="sign bad">✕</span>
          <span class="text">This page cannot read its stream: {hasWorkerFailed.value}.</span>
          <button class="button bordered" onClick={() => location.reload()}>
            Reload
          </button>
        </p>
      ) : null}
      {state?.refusal ? (
        <p class="notice fault" role="alert">
          <span class="sign bad">✕</span>
          <span class="text">
            The server does not answer this request ({state.refusal.status}): {state.refusal.text}
          </span>
          <button class="button bordered" onClick={reconnect}>
            Try again
          </button>
        </p>
      ) : null}
      {state?.faults.map((fault) => (
        <p class="notice warning" key={fault}>
          <span class="sign warn">▲</span>
          <span class="text">Filter {fault}. This term is left out.</span>
        </p>
      ))}
      {timeFault.value ? (
        <p class="notice warning" role="alert">
          <span class="sign warn">▲</span>
          <span class="text">{timeFault.value}</span>
          <button class="button" aria-label="Close this notice" onClick={() => (timeFault.value = "")}>
            ✕
          </button>
        </p>
      ) : null}
      {inPast.value && treeFrom_ms !== null ? (
        <p class="notice warning">
          <span class="sign warn">▲</span>
          <span class="text">Topics that were silent since {momentWords(treeFrom_ms, false)} may be missing: the server looked back only so far.</span>
        </p>
      ) : null}
      {overflowed > 0 ? (
        <p class="notice warning">
          <span class="sign warn">▲</span>
          <span class="text">
            This page shows the first {grouped(TOPICS_MAX)} topics; messages of others are left out. A filter shows them.
          </span>
        </p>
      ) : null}
    </>
  );
}

export function FirstScreenNotice({ first, dismiss }: { first: FirstMessage; dismiss: () => void }) {
  const waited_ms = first.time_ms - openedAt_ms - (connection.value?.clockOffset_ms ?? 0);
  return (
    <p class="notice good" role="status">
      <span class="sign ok">●</span>
      <span class="text">
        First message from <b>{first.clientId || "a client without a name"}</b>, {duration(waited_ms)} after you opened this page. It is
        stored: reload and it is still here.
      </span>
      <button class="button" onClick={dismiss} aria-label="Close this notice">
        ✕
      </button>
    </p>
  );
}
