/** The state of a device: a sign and a word, never colour alone. */
import { STATE_HELP, STATE_SIGNS, STATE_WORDS, type DeviceState } from "./device-words";

export function State({ state }: { state: DeviceState }) {
  return (
    <span class={`state is-${state}`} title={STATE_HELP[state]}>
      {STATE_SIGNS[state]} <span class="words">{STATE_WORDS[state]}</span>
    </span>
  );
}
