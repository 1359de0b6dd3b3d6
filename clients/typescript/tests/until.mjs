// Waiting for what comes by itself.

/** Waits until the condition holds, for 30 s at most. */
export async function until(condition) {
  for (const end = Date.now() + 30_000; !(await condition()); ) {
    if (Date.now() > end) throw new Error(`it never held: ${condition}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
