import { bitmapWords, fillBitmap, popcount32 } from '../../base/index.ts';
import type { DirtyLog, RamBlock } from '../../machine/index.ts';
import type { GuardedDevice } from './guarded-device.ts';
import { together } from './running.ts';

interface LoggedMemory {
  readonly ram: readonly RamBlock[];
  readonly dirtyLog: DirtyLog | undefined;
  readonly targetPageSize: number;
}

/**
 * The machine's dirty log, and those of its devices (DMA logging): `collect` asks the devices, `harvest` gives both. A device that fails to answer
 * may have written anywhere: then all memory is dirty, and the migration goes on.
 */
export class DeviceDirtyLog implements DirtyLog {
  readonly #machine: LoggedMemory;
  readonly #devices: () => readonly GuardedDevice[];
  /** Those that log, between start and stop. */
  #logging: readonly GuardedDevice[] = [];
  /** By block: what devices have reported and nobody has harvested. */
  #reported: readonly Uint32Array[] = [];

  constructor(machine: LoggedMemory, devices: () => readonly GuardedDevice[]) {
    this.#machine = machine;
    this.#devices = devices;
  }

  async start(): Promise<void> {
    const { ram, targetPageSize } = this.#machine;
    this.#reported = ram.map((block) => new Uint32Array(bitmapWords(block.usedLength / targetPageSize)));
    this.#logging = this.#devices().filter((device) => device.features.dmaLogging);
    const ranges = ram.map(({ guestAddress, usedLength }) => ({ iova: guestAddress, length: usedLength }));
    await together(this.#logging, (device) => device.startDmaLogging(targetPageSize, ranges));
    await this.#machine.dirtyLog?.start();
  }

  async collect(): Promise<void> {
    const { ram, targetPageSize } = this.#machine;
    await this.#machine.dirtyLog?.collect?.();
    await together(this.#logging, async (device) => {
      for (const [index, { guestAddress, usedLength }] of ram.entries()) {
        const range = { iova: guestAddress, length: usedLength };
        const into = this.#reported[index]!;
        await device
          .reportDmaLogging(range, targetPageSize, into)
          .catch(() => fillBitmap(into, usedLength / targetPageSize));
      }
    });
  }

  harvest(block: number, into: Uint32Array): number {
    const reported = this.#reported[block]!;
    let added = this.#machine.dirtyLog?.harvest(block, into) ?? 0;
    for (let word = 0; word < reported.length; word++) {
      const fresh = reported[word]! & ~into[word]!;
      reported[word] = 0;
      if (fresh === 0) continue;
      into[word]! |= fresh;
      added += popcount32(fresh);
    }
    return added;
  }

  async stop(): Promise<void> {
    const logging = this.#logging.filter((device) => !device.lost);
    this.#logging = [];
    // A device that cannot end its log is one that logs in vain.
    await Promise.allSettled(logging.map((device) => device.stopDmaLogging()));
    await this.#machine.dirtyLog?.stop();
  }
}
