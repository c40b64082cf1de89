/** How the first device connects: lines to copy, with the address that it can use. Loaded with the first screen. */
import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { ApiClient } from "../api/client";
import type { SystemInfo } from "../api/types";
import { copyText } from "../app/clipboard";
import { Refused } from "./Refused";
import { deviceAddresses, fillSample, isReachable, needsLogin, SAMPLES, type SampleId } from "./samples";

const api = new ApiClient(new URL("api/v1/", document.baseURI).href);

export default function WaysToConnect() {
  const system = useSignal<SystemInfo | null>(null);
  const fault = useSignal("");
  const load = (): void => {
    fault.value = "";
    api.system().then(
      (answer) => (system.value = answer),
      (error: unknown) => (fault.value = error instanceof Error ? error.message : String(error)),
    );
  };
  useEffect(load, []);
  return (
    <>
      <div class="connect">
        {fault.value ? (
          <div class="only-here">
            <p>The server's addresses did not load: {fault.value}</p>
            <button class="button bordered" onClick={load}>
              Try again
            </button>
          </div>
        ) : null}
        {system.value ? <Ways system={system.value} /> : null}
      </div>
      <aside>
        <Refused at_ms={null} none="A device that is refused appears here, with the reason." />
        <section>
          <h2>No device at hand?</h2>
          <p>Fifty simulated sensors, on this computer:</p>
          <Copyable text={simulateLine(system.value)} isLine />
        </section>
        <section>
          <h2>A program?</h2>
          <p>
            Everything on this page comes from an open interface: <a href="docs">/docs</a>
          </p>
        </section>
      </aside>
    </>
  );
}

/** The simulator looks for the usual port by itself. */
function simulateLine(system: SystemInfo | null): string {
  const address = system ? deviceAddresses(system, location.hostname)[0] : undefined;
  const line = "headrace simulate --devices 50";
  return address === undefined || address.port === 1883 ? line : `${line} --broker mqtt://${address.host}:${address.port}`;
}

const OPEN_TO_NETWORK = "HEADRACE_MQTT__BIND=0.0.0.0:1883 HEADRACE_AUTH__ALLOW_ANONYMOUS=true headrace serve";

function Ways({ system }: { system: SystemInfo }) {
  const chosen = useSignal<SampleId>("shell");
  const place = useSignal(0);
  const addresses = deviceAddresses(system, location.hostname);
  const address = addresses[place.value] ?? addresses[0];
  if (!address) return <p class="only-here">This server does not listen for MQTT over TCP.</p>;
  const text = fillSample(chosen.value, { address, origin: new URL(".", document.baseURI).href.replace(/\/$/, ""), needsLogin: needsLogin(system.auth) });
  return (
    <>
      {isReachable(system.listen) ? null : (
        <div class="only-here">
          <p>
            <b>This server listens on this computer only.</b> An ESP32 cannot reach it. To open MQTT to your network, where everyone may then
            connect:
          </p>
          <Copyable text={OPEN_TO_NETWORK} isLine />
        </div>
      )}
      <div class="ways">
        <div class="tabs" role="tablist" aria-label="Ways to send a message">
          {SAMPLES.map((sample) => (
            <button
              key={sample.id}
              class="button"
              role="tab"
              id={`way-${sample.id}`}
              aria-selected={sample.id === chosen.value}
              aria-controls="way"
              onClick={() => (chosen.value = sample.id)}
            >
              {sample.name}
            </button>
          ))}
          <span class="spacer" />
          {addresses.length > 1 ? (
            <label>
              <span class="visually-hidden">Address of this server</span>
              <select value={String(place.value)} onChange={(event) => (place.value = Number(event.currentTarget.value))}>
                {addresses.map((entry, index) => (
                  <option key={entry.url} value={String(index)}>
                    {entry.host}:{entry.port}
                  </option>
                ))}
              </select>
            </label>
          ) : null}
        </div>
        <div id="way" role="tabpanel" aria-labelledby={`way-${chosen.value}`}>
          <Copyable text={text} />
        </div>
      </div>
    </>
  );
}

function Copyable({ text, isLine = false }: { text: string; isLine?: boolean }) {
  const words = useSignal("Copy");
  useEffect(() => {
    words.value = "Copy";
  }, [text]);
  const parts = text.split("FILL IN");
  return (
    <div class={`copyable ${isLine ? "line" : ""}`}>
      <pre class="mono" tabIndex={isLine ? undefined : 0}>
        {parts.map((part, index) => (
          <>
            {index > 0 ? <mark>FILL IN</mark> : null}
            {part}
          </>
        ))}
      </pre>
      <button class="button" onClick={() => void copyText(text).then((isDone) => (words.value = isDone ? "Copied" : "Press Ctrl-C"))}>
        {words.value}
      </button>
    </div>
  );
}
