// Waiting that an `AbortSignal` ends.

/** What `promise` comes to, or the signal's reason as soon as it is aborted. The promise itself goes on: others may wait for it. */
export async function unlessAborted<T>(signal: AbortSignal | undefined, promise: Promise<T>): Promise<T> {
  if (signal === undefined) return promise;
  let abort = () => {};
  const aborted = new Promise<never>((_, reject) => {
    abort = () => reject(signal.reason);
    if (signal.aborted) abort();
    else signal.addEventListener("abort", abort);
  });
  try {
    return await Promise.race([aborted, promise]);
  } finally {
    signal.removeEventListener("abort", abort);
  }
}

/** Waits `seconds`. */
export async function pause(seconds: number, signal: AbortSignal | undefined): Promise<void> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  try {
    await unlessAborted(signal, new Promise((resolve) => (timer = setTimeout(resolve, seconds * 1000))));
  } finally {
    clearTimeout(timer);
  }
}

/** The longest time that timers know: about 25 days. */
const LONGEST = 2 ** 31 - 1;

/**
 * A signal that is aborted with `signal`, and with a `TimeoutError` after `ms`; `end` gives both up. By hand: `AbortSignal.any` is newer
 * than many browsers.
 */
export function deadline(ms: number, signal: AbortSignal | undefined): { signal: AbortSignal; end: () => void } {
  const controller = new AbortController();
  const abort = () => controller.abort(signal?.reason);
  const late = () => controller.abort(new DOMException(`no answer within ${ms} ms`, "TimeoutError"));
  const timer = ms <= LONGEST ? setTimeout(late, ms) : undefined;
  signal?.addEventListener("abort", abort);
  const end = () => {
    clearTimeout(timer);
    signal?.removeEventListener("abort", abort);
  };
  return { signal: controller.signal, end };
}
