import { closeSync } from 'node:fs';
import type { SharedRam } from '../../machine/index.ts';
import { duplicate } from '../../native/index.ts';

/**
 * RAM that threads may use until it is released, whatever its machine closes: a number that was closed may be another file's soon. Throws
 * NATIVE_UNAVAILABLE, NATIVE_CALL.
 */
export class HeldRam {
  readonly ram: SharedRam;
  #fd = -1;

  constructor(ram: SharedRam) {
    if (ram.kind === 'memory') {
      this.ram = ram;
      return;
    }
    this.#fd = duplicate(ram.fd);
    this.ram = { ...ram, fd: this.#fd };
  }

  /** When the threads are joined. Idempotent. */
  release(): void {
    if (this.#fd >= 0) closeSync(this.#fd);
    this.#fd = -1;
  }
}
