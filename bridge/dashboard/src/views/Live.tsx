/** The Live view: topic tree, values, tail. */
import { TailPanel } from "./TailPanel";
import { TreePanel } from "./TreePanel";
import { ValuesPanel } from "./ValuesPanel";

export function Live() {
  return (
    <main class="live">
      <TreePanel />
      <ValuesPanel />
      <TailPanel />
    </main>
  );
}
