/** Monotonic milliseconds with fractions; the same clock in every process of a host (CLOCK_MONOTONIC). */
export function nowMs(): number {
  return nowNs() / 1e6;
}

/** The same in nanoseconds; exact to half a microsecond after a century. */
export function nowNs(): number {
  return Number(process.hrtime.bigint());
}

/** Lets sockets, timers and QMP run; for loops that would otherwise keep the event loop to themselves. */
export function yieldToEventLoop(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
