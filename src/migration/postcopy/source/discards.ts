import { nextClearBit, nextSetBit } from '../../../base/index.ts';
import { type Command, DISCARD_RANGES_PER_COMMAND } from '../../../wire/index.ts';
import type { RemainingBlock } from './remaining-ram.ts';

/**
 * What the destination must drop at the switchover: every page that is still to be sent, whether it has an older version of it or not
 * (qemu-wire fact 23). Ranges are maximal, in order, in bytes; DISCARD_RANGES_PER_COMMAND of them a command, as QEMU sends them.
 */
export function* discardCommands(block: RemainingBlock, targetPageSize: number): Generator<Command> {
  const { dirty, pageCount, idstr } = block;
  let ranges: { start: number; length: number }[] = [];
  for (let first = nextSetBit(dirty, 0, pageCount); first >= 0; ) {
    const end = nextClearBit(dirty, first, pageCount);
    ranges.push({ start: first * targetPageSize, length: (end - first) * targetPageSize });
    if (ranges.length === DISCARD_RANGES_PER_COMMAND) {
      yield { name: 'POSTCOPY_RAM_DISCARD', block: idstr, ranges };
      ranges = [];
    }
    first = nextSetBit(dirty, end, pageCount);
  }
  if (ranges.length > 0) yield { name: 'POSTCOPY_RAM_DISCARD', block: idstr, ranges };
}
