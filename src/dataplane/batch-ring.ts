/**
 * Batches on their way from the main thread to a sending thread: a ring of SLOTS slots in shared memory, one writer, one reader.
 *
 *     slot: u32 block (or SYNC, STATE)   u32 page count   pagesMax x u32 page number inside the block
 *
 * A batch is a packet: at most 512 KiB of pages. Eight slots are 4 MiB ahead of the kernel: a few milliseconds of work for a thread, so that
 * main may sleep, and little enough to be sent when the guest is stopped. A slot more is kept free for SYNC, which therefore always
 * has room.
 */
import { multifdPagesMax } from '../wire/multifd/index.ts';

export const SLOTS = 8;
const RING_SLOTS = SLOTS + 1;
/** Words of a slot. */
export const BATCH = { BLOCK: 0, COUNT: 1, PAGES: 2 } as const;
/** In place of a block: not a batch but the order to come to a SYNC. */
export const SYNC = 0xffffffff;
/** In place of a block: a buffer of device state. */
export const STATE = 0xfffffffe;
/** Words of a slot with STATE. BUFFER: number in the arena; INDEX, IS_CONFIG: of the packet; LENGTH: bytes. */
export const STATE_BUFFER = { DEVICE: 1, BUFFER: 2, INDEX: 3, IS_CONFIG: 4, LENGTH: 5, WORDS: 6 } as const;

export interface BatchRing {
  readonly shared: SharedArrayBuffer;
  readonly pagesMax: number;
  readonly slots: readonly Uint32Array[];
}

export function batchRingOf(pageSize: number, shared?: SharedArrayBuffer): BatchRing {
  const pagesMax = multifdPagesMax(pageSize);
  const words = Math.max(BATCH.PAGES + pagesMax, STATE_BUFFER.WORDS);
  const memory = shared ?? new SharedArrayBuffer(RING_SLOTS * words * 4);
  const slots = Array.from({ length: RING_SLOTS }, (_, slot) => new Uint32Array(memory, slot * words * 4, words));
  return { shared: memory, pagesMax, slots };
}

/** The slot of the batch with that number, counted from 0 since the start. */
export function slotOf(ring: BatchRing, batch: number): Uint32Array {
  return ring.slots[batch % RING_SLOTS]!;
}
