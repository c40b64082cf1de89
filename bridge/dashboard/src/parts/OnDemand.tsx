/** A view, or a part of one, whose code is loaded when it is opened: the first view need not wait for it. */
import { signal } from "@preact/signals";
import type { ComponentType } from "preact";
import { useEffect } from "preact/hooks";

export function onDemand<Props extends object>(load: () => Promise<{ default: ComponentType<Props> }>, Place: "main" | "div" = "main"): ComponentType<Props> {
  const loaded = signal<ComponentType<Props> | null>(null);
  const fault = signal("");
  return function OnDemand(props: Props) {
    useEffect(() => {
      load().then(
        (module) => (loaded.value = module.default),
        (error: unknown) => (fault.value = error instanceof Error ? error.message : String(error)),
      );
    }, []);
    const View = loaded.value;
    if (View) return <View {...props} />;
    if (!fault.value) return <Place class="reason late">Loading</Place>;
    // After an update of the server the file of this page is not there any more.
    return (
      <Place class="reason">
        <p>This view did not load: {fault.value}</p>
        <button class="button bordered" onClick={() => location.reload()}>
          Reload
        </button>
      </Place>
    );
  };
}
