/** A device that takes its state at a rate, and does nothing with it: loaded by whoever has it, on any thread. */
import { nowMs } from '../../src/base/index.ts';
import type { StateLoader } from '../../src/dataplane/index.ts';

/** What a late wake-up has cost is made up for by the next bytes, up to this much. */
const SLACK_MS = 4;

export interface PacedDevice {
  /** f64: when it is through with what it has, monotonic ms. */
  readonly freeAt: SharedArrayBuffer;
  readonly bytesPerMs: number;
}

export function pacedDevice(bytesPerSecond: number): PacedDevice {
  return { freeAt: new SharedArrayBuffer(8), bytesPerMs: bytesPerSecond / 1000 };
}

/** Takes the bytes; ms to wait until it is through with them. */
export function take({ freeAt: shared, bytesPerMs }: PacedDevice, bytes: number): number {
  const freeAt = new Float64Array(shared);
  const now = nowMs();
  freeAt[0] = Math.max(freeAt[0]!, now - SLACK_MS) + bytes / bytesPerMs;
  return Math.max(0, freeAt[0]! - now);
}

export function openStateLoader(data: unknown): StateLoader {
  const sleeper = new Int32Array(new SharedArrayBuffer(4));
  return {
    load(bytes) {
      Atomics.wait(sleeper, 0, 0, take(data as PacedDevice, bytes.length));
    },
  };
}
