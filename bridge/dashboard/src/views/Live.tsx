/** The Live view: topic tree, values, tail. */
import { TailPanel } from "./TailPanel";
import { TreePanel } from "./TreePanel";
import { ValuesPanel } from "./ValuesPanel";

export function Live() {
  return (
    <main class="live">
      <h1 class="visually-hidden">Live</h1>
      <TreePanel />
      <ValuesPanel />
      <TailPanel />
    </main>
  );
}
