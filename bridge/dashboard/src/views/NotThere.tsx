/** A page that this version does not have: said, with a way on. */
import type { View } from "../app/router";
import { PageLink } from "./SideBar";

export function NotThere({ view }: { view: View }) {
  return (
    <main class="not-there">
      <div class="reason">
        <h1>{view.charAt(0).toUpperCase() + view.slice(1)}</h1>
        <p>This page is not available on this server.</p>
        <PageLink view="live">Go to Live</PageLink>
      </div>
    </main>
  );
}
