/** What a copying thread does per batch; free functions over views that were made once. */
import { multifdPagesMax } from '../wire/multifd/index.ts';
import { BATCH } from './batch-ring.ts';
import { Counter } from './control-words.ts';
import type { CopyStart } from './messages.ts';
import { FileView } from './pages/file-view.ts';
import { MemoryView } from './pages/memory-view.ts';
import { type PageSource, pageSource } from './pages/page-source.ts';
import { type PageTarget, pageTarget } from './pages/page-target.ts';

export interface CopyState {
  /** Pages of a file into memory that needs nothing in between. */
  readonly load: { readonly file: FileView; readonly memory: MemoryView } | undefined;
  /** Zero pages need nothing: `to` is zero, and of a file no page comes twice. */
  readonly leavesZeros: boolean;
  readonly source: PageSource;
  readonly target: PageTarget;
  readonly pageSize: number;
  readonly offsets: Float64Array;
  readonly counters: Float64Array;
}

export function copyState({ from, to }: CopyStart, counters: Float64Array): CopyState {
  const { pageSize } = from;
  const straight = from.kind === 'file' && !from.direct && to.kind === 'memory';
  return {
    load: straight ? { file: new FileView(from), memory: new MemoryView(to) } : undefined,
    leavesZeros: from.kind === 'file' && to.kind === 'memory' && to.isZero,
    source: pageSource(from),
    target: pageTarget(to),
    pageSize,
    offsets: new Float64Array(multifdPagesMax(pageSize)),
    counters,
  };
}

/** Copies the pages of the batch in `slot`; those without content become zero. Waits for the disk. Throws FileFailure. */
export function copyBatch(state: CopyState, slot: Uint32Array): void {
  const { load, source, target, offsets, counters } = state;
  const block = slot[BATCH.BLOCK]!;
  const count = slot[BATCH.COUNT]!;
  let normal: number;
  if (load !== undefined) normal = loadStraight(state, load.file, load.memory, slot);
  else {
    normal = source.select(slot, true, offsets);
    target.take(source, block, offsets, normal);
    if (!state.leavesZeros) target.clear(block, offsets, normal, count);
  }
  counters[Counter.BYTES]! += normal * state.pageSize;
  counters[Counter.PACKETS]! += 1;
  counters[Counter.NORMAL_PAGES]! += normal;
  counters[Counter.ZERO_PAGES]! += count - normal;
}

/** Neighbours are read together, to where they belong. Returns how many pages the file has. */
function loadStraight(state: CopyState, file: FileView, memory: MemoryView, slot: Uint32Array): number {
  const { pageSize, leavesZeros } = state;
  const block = slot[BATCH.BLOCK]!;
  const end = BATCH.PAGES + slot[BATCH.COUNT]!;
  const base = memory.addresses[block]!;
  let normal = 0;
  for (let at: number = BATCH.PAGES; at < end; ) {
    const first = slot[at]!;
    if (!file.has(block, first * pageSize)) {
      if (!leavesZeros) memory.clearPages(block, first * pageSize, 1);
      at++;
      continue;
    }
    let run = 1;
    while (at + run < end && slot[at + run] === first + run && file.has(block, (first + run) * pageSize)) run++;
    file.read(block, first * pageSize, base + first * pageSize, run * pageSize);
    normal += run;
    at += run;
  }
  return normal;
}
