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
