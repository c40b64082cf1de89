/** The frame: header, time, notices, the places at the side, and the view. */
import { useSignal } from "@preact/signals";
import { onDemand } from "../parts/OnDemand";
import { FirstScreenNotice, Notices } from "../views/Notices";
import { Header } from "../views/Header";
import { Live } from "../views/Live";
import { SideBar } from "../views/SideBar";
import { SpokenTime } from "../views/TimeStatus";
import { TimeRow } from "../views/TimeRow";
import { NotThere } from "../views/NotThere";
import { Welcome } from "../views/Welcome";
import { momentWords } from "../time/format";
import { firstMessage, isStale, shown, tree } from "./link";
import { address } from "./router";
import { inPast, time } from "./timeline";

const Devices = onDemand(() => import("../views/Devices"));
const Streams = onDemand(() => import("../views/Streams"));

export function App() {
  const isDismissed = useSignal(false);
  const { isWelcome, terms } = address.value;
  // Nothing on the whole server: the first screen. Nothing for this filter is the filter's business, not the newcomer's.
  const isWaiting = !inPast.value && tree.value?.isEmpty === true && terms.length === 0;
  const first = firstMessage.value;
  return (
    <div class={`frame is-${time.value.mode} ${isStale.value ? "is-stale" : ""}`}>
      <Header />
      <TimeRow />
      <SpokenTime />
      {isStale.value && inPast.value ? <p class="loading-then late">Loading {momentWords(shown.value, false)}</p> : null}
      <div class="notices">
        <Notices />
        {first && !isDismissed.value && !isWelcome ? <FirstScreenNotice first={first} dismiss={() => (isDismissed.value = true)} /> : null}
      </div>
      <div class="middle">
        <SideBar />
        <View isWaiting={isWaiting} />
      </div>
    </div>
  );
}

function View({ isWaiting }: { isWaiting: boolean }) {
  const { view, isWelcome } = address.value;
  if (view === "devices" || view === "device") return <Devices />;
  if (view === "streams" || view === "stream") return <Streams />;
  if (view !== "live" && view !== "topic") return <NotThere view={view} />;
  return isWaiting || isWelcome ? <Welcome isWaiting={isWaiting} /> : <Live />;
}
