/** The places of the page, at its side; on a small screen at its bottom. */
import { useEffect } from "preact/hooks";
import { bindKey } from "../app/keys";
import { address, go, linkTo, type View } from "../app/router";

interface Place {
  view: View;
  words: string;
  key: string;
  /** Pages that open from it. */
  also: readonly View[];
  path: string;
}

const PLACES: readonly Place[] = [
  { view: "live", words: "Live", key: "l", also: ["topic"], path: "M2 9h3l2-6 3 10 2-6h3" },
  { view: "devices", words: "Devices", key: "d", also: ["device"], path: "M3 3h10v7H3zM6 13h4M8 10v3" },
  { view: "streams", words: "Streams", key: "s", also: ["stream"], path: "M2 4c2-2 4-2 6 0s4 2 6 0M2 8c2-2 4-2 6 0s4 2 6 0M2 12c2-2 4-2 6 0s4 2 6 0" },
];

/** Another place keeps filter, moment and window. */
export function goToPlace(view: View, name = ""): void {
  go({ view, name, isWelcome: false });
}

export function SideBar() {
  useEffect(() => {
    const unbind = PLACES.map(({ view, words, key }) => bindKey({ key: `g ${key}`, words: `${words} view`, run: () => goToPlace(view) }));
    return () => unbind.forEach((undo) => undo());
  }, []);
  const { view } = address.value;
  return (
    <nav class="sidebar" aria-label="Views">
      {PLACES.map((place) => (
        <PageLink key={place.view} view={place.view} isCurrent={view === place.view || place.also.includes(view)}>
          <svg class="icon" width="16" height="16" viewBox="0 0 16 16" aria-hidden="true">
            <path d={place.path} />
          </svg>
          {place.words}
        </PageLink>
      ))}
    </nav>
  );
}

interface PageLinkProps {
  view: View;
  name?: string;
  isCurrent?: boolean;
  children: preact.ComponentChildren;
}

/** A link within the page: a plain press changes the view, any other does what it does in a browser. */
export function PageLink({ view, name = "", isCurrent = false, children }: PageLinkProps) {
  return (
    <a
      class="place"
      href={linkTo({ view, name, isWelcome: false })}
      aria-current={isCurrent ? "page" : undefined}
      onClick={(event) => {
        if (event.button !== 0 || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
        event.preventDefault();
        goToPlace(view, name);
      }}
    >
      {children}
    </a>
  );
}
