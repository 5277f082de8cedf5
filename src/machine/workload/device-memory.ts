import { assert } from '../../base/index.ts';
import type { Hardware } from './hardware.ts';

/** Guest memory for a thread that writes to it by itself: bytes first, then the page's bit in the log (see dirty-log). */
export interface DeviceMemory {
  /** Guest address of the first byte; so many bytes from there on. */
  readonly iova: number;
  readonly length: number;
  readonly memory: SharedArrayBuffer;
  readonly byteOffset: number;
  /** Int32 words; the first page has bit `firstBit`. */
  readonly log: SharedArrayBuffer;
  readonly firstBit: number;
}

export function deviceMemoryOf({ layout, shared }: Hardware): DeviceMemory {
  const [, , , block] = layout.blocks;
  assert(block !== undefined, 'a machine made without device memory has no devices that write to it');
  const { guestAddress: iova, usedLength: length, firstPage: firstBit } = block;
  return { iova, length, memory: shared.memory[3]!, byteOffset: 0, log: shared.dirtyLog, firstBit };
}
