/**
 * Pages that are not there yet while the guest runs (postcopy). One bit a flat page in shared memory; a vCPU that is about to touch an absent page
 * waits for it (vcpu.ts), and nobody else looks at such a page: its memory is filled in place and becomes visible as a whole with `place`.
 */
import type { MissingRam, PageFault } from '../machine.ts';
import { type Control, REGISTERS, Register, Word } from './control-words.ts';
import type { BlockLayout, Layout } from './layout.ts';
import type { Vcpus } from './vcpus.ts';

export function newPresentMemory(layout: Layout): SharedArrayBuffer {
  return new SharedArrayBuffer(layout.flatPageCount / 8);
}

export interface MissingPagesParts {
  readonly layout: Layout;
  readonly control: Control;
  readonly present: SharedArrayBuffer;
  readonly vcpus: Vcpus;
  readonly vcpuCount: number;
  /** `order[i]`: the layout's block for the stream's block i. */
  readonly order: readonly number[];
  /** Host pages of the layout's blocks, bytes. */
  readonly pageSizes: readonly number[];
}

export class MissingPages implements MissingRam {
  readonly runsEarly = true;
  readonly vcpuCount: number;
  readonly pageSizes: readonly number[];
  readonly #parts: MissingPagesParts;
  readonly #blocks: readonly BlockLayout[];
  readonly #present: Int32Array;

  constructor(parts: MissingPagesParts) {
    this.#parts = parts;
    this.vcpuCount = parts.vcpuCount;
    this.pageSizes = parts.order.map((block) => parts.pageSizes[block]!);
    this.#blocks = parts.order.map((block) => parts.layout.blocks[block]!);
    this.#present = new Int32Array(parts.present);
    this.#present.fill(-1);
  }

  drop(block: number, page: number, count: number): void {
    const first = this.#blocks[block]!.firstPage + page;
    forWords(first, count, (word, mask) => Atomics.and(this.#present, word, ~mask));
  }

  async begin(fault: (fault: PageFault) => void): Promise<void> {
    const { vcpus } = this.#parts;
    vcpus.faulted = (vcpu) => {
      const found = this.#faultOf(vcpu);
      if (found !== undefined) fault(found);
    };
    await vcpus.pagesMayBeAbsent(true);
  }

  place(block: number, page: number, count: number): void {
    const { control, vcpuCount } = this.#parts;
    const first = this.#blocks[block]!.firstPage + page;
    forWords(first, count, (word, mask) => Atomics.or(this.#present, word, mask));
    for (let vcpu = 0; vcpu < vcpuCount; vcpu++) {
      const at = Word.FAULT + vcpu;
      const waitsFor = Atomics.load(control.words, at) - 1;
      if (waitsFor < first || waitsFor >= first + count) continue;
      if (Atomics.compareExchange(control.words, at, waitsFor + 1, 0) === waitsFor + 1) {
        Atomics.notify(control.words, at);
      }
    }
  }

  /** A vCPU that is slow to hear of it goes on looking, which is right too. */
  async end(): Promise<void> {
    const { vcpus } = this.#parts;
    await vcpus.pagesMayBeAbsent(false).catch(() => {});
    vcpus.faulted = () => {};
  }

  /** What the vCPU waits for now; undefined: nothing any more. */
  #faultOf(vcpu: number): PageFault | undefined {
    const { control } = this.#parts;
    const flatPage = Atomics.load(control.words, Word.FAULT + vcpu) - 1;
    if (flatPage < 0) return undefined;
    const block = this.#blocks.findIndex(
      ({ firstPage, pageCount }) => flatPage >= firstPage && flatPage < firstPage + pageCount,
    );
    if (block < 0) return undefined;
    const sinceNs = control.registers[vcpu * REGISTERS + Register.FAULT_SINCE]!;
    return { vcpu, block, page: flatPage - this.#blocks[block]!.firstPage, sinceNs };
  }
}

/** The words of a bitmap that a range of bits lies in, each with the bits that are meant. */
function forWords(first: number, count: number, act: (word: number, mask: number) => void): void {
  const end = first + count;
  for (let bit = first; bit < end; ) {
    const word = bit >>> 5;
    const last = Math.min(end, (word + 1) * 32);
    // A shift by 32 is none.
    act(word, (last - bit === 32 ? -1 : (1 << (last - bit)) - 1) << (bit & 31));
    bit = last;
  }
}
