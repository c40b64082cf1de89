/** The first screen: what the page waits for, and how the first device connects. */
import "../style/welcome.css";
import { go } from "../app/router";
import { onDemand } from "../parts/OnDemand";

const WaysToConnect = onDemand(() => import("./Ways"), "div");

export function Welcome({ isWaiting }: { isWaiting: boolean }) {
  return (
    <main class="welcome">
      <div class="sheet">
        <div class="heading">
          <h1>
            {isWaiting ? <span class="pulse" aria-hidden="true" /> : null}
            {isWaiting ? "Waiting for the first device" : "Connect a device"}
          </h1>
          <p class="lead">
            Send one message, to any topic. It appears here by itself, and it is stored.
            {isWaiting ? null : (
              <>
                {" "}
                <button class="button link" onClick={() => go({ isWelcome: false })}>
                  Go to Live
                </button>
              </>
            )}
          </p>
        </div>
        <WaysToConnect />
      </div>
    </main>
  );
}
