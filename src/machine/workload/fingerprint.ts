import { REGISTERS, Register } from './control-words.ts';
import type { Hardware } from './hardware.ts';
import { CHUNK_SHIFT, type Chunks, chunksOf, PAGE_WORDS, PAGES_PER_CHUNK } from './layout.ts';
import { mix } from './program.ts';

/** Pages looked at, evenly spread over each block. */
const SAMPLES_PER_BLOCK = 16384;

/**
 * A short text that differs if the machines' registers differ or any of the sampled pages' version counters do: for a quick
 * look whether two stopped machines are in the same state. `verify` is the proof.
 */
export function fingerprintOf({ layout, memory, control, shared }: Hardware): string {
  const chunks: Chunks = chunksOf(layout, memory.shared);
  let hash = 0;
  const add = (word: number) => {
    hash = mix(Math.imul(hash, 31) + word);
  };
  for (let vcpu = 0; vcpu < shared.vcpuCount; vcpu++) {
    add(control.registers[vcpu * REGISTERS + Register.OPERATIONS]!);
    add(control.registers[vcpu * REGISTERS + Register.ACCUMULATOR]!);
  }
  for (const { firstPage, pageCount } of layout.blocks) {
    const step = Math.max(1, Math.floor(pageCount / SAMPLES_PER_BLOCK));
    for (let page = firstPage; page < firstPage + pageCount; page += step) {
      add(chunks[page >>> CHUNK_SHIFT]![(page % PAGES_PER_CHUNK) * PAGE_WORDS]!);
    }
  }
  return (hash >>> 0).toString(16).padStart(8, '0');
}
