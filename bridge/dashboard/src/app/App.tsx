/** The frame: header, notices, and the view. */
import { useSignal } from "@preact/signals";
import { FirstScreenNotice, Notices } from "../views/Notices";
import { Header } from "../views/Header";
import { Live } from "../views/Live";
import { Welcome } from "../views/Welcome";
import { firstMessage, tree } from "./link";
import { address } from "./router";

export function App() {
  const isDismissed = useSignal(false);
  const { isWelcome, terms } = address.value;
  // Nothing on the whole server: the first screen. Nothing for this filter is the filter's business, not the newcomer's.
  const isWaiting = tree.value?.isEmpty === true && terms.length === 0;
  const first = firstMessage.value;
  return (
    <div class="frame">
      <Header />
      <div class="notices">
        <Notices />
        {first && !isDismissed.value && !isWelcome ? <FirstScreenNotice first={first} dismiss={() => (isDismissed.value = true)} /> : null}
      </div>
      {isWaiting || isWelcome ? <Welcome isWaiting={isWaiting} /> : <Live />}
    </div>
  );
}
