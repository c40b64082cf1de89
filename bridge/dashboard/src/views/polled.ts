/** Asks the server for what a view shows: at once when that changes, and now and again while it is live and seen. */
import { useEffect } from "preact/hooks";

/** `ask` deals with its own faults. Without `isRepeated` it is asked once for each set of `inputs`. */
export function usePolled(every_ms: number, isRepeated: boolean, inputs: readonly unknown[], ask: (abort: AbortSignal) => Promise<void>): void {
  useEffect(() => {
    let timer: ReturnType<typeof setTimeout> | undefined;
    let abort = new AbortController();
    const run = async (): Promise<void> => {
      clearTimeout(timer);
      abort.abort();
      abort = new AbortController();
      const { signal } = abort;
      if (document.hidden) return;
      await ask(signal);
      if (!signal.aborted && isRepeated) timer = setTimeout(() => void run(), every_ms);
    };
    const onVisibility = (): void => void run();
    document.addEventListener("visibilitychange", onVisibility);
    void run();
    return () => {
      document.removeEventListener("visibilitychange", onVisibility);
      clearTimeout(timer);
      abort.abort();
    };
  }, inputs);
}
