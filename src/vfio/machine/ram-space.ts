import type { RamBlock, SharedRam } from '../../machine/index.ts';
import { ERRNO, operationFailed } from '../errors.ts';
import type { DmaSpace } from '../function.ts';

/** A view may not be larger than 4 GiB, a block may. */
const CHUNK_BYTES = 1024 ** 3;

/** A machine's RAM by guest address, for devices that reach it by messages. What they write is in their own logs. */
export class RamSpace implements DmaSpace {
  readonly #blocks: readonly {
    readonly address: number;
    readonly length: number;
    readonly chunks: readonly Buffer[];
  }[];

  /** RAM in shared memory only. */
  constructor(blocks: readonly RamBlock[], ram: SharedRam) {
    if (ram.kind !== 'memory') throw new Error('vmferry bug: a checkpoint has no devices');
    this.#blocks = blocks.map(({ guestAddress, usedLength }, index) => {
      const { memory, byteOffset } = ram.blocks[index]!;
      const chunks = Array.from({ length: Math.ceil(usedLength / CHUNK_BYTES) }, (_, chunk) => {
        const at = chunk * CHUNK_BYTES;
        return Buffer.from(memory, byteOffset + at, Math.min(CHUNK_BYTES, usedLength - at));
      });
      return { address: guestAddress, length: usedLength, chunks };
    });
  }

  get ranges(): readonly { readonly iova: number; readonly length: number }[] {
    return this.#blocks.map(({ address, length }) => ({ iova: address, length }));
  }

  async read(iova: number, into: Buffer): Promise<void> {
    this.#each(iova, into, (part, chunk, at) => chunk.copy(part, 0, at, at + part.length));
  }

  async write(iova: number, bytes: Buffer): Promise<void> {
    this.#each(iova, bytes, (part, chunk, at) => part.copy(chunk, at));
  }

  #each(iova: number, bytes: Buffer, copy: (part: Buffer, chunk: Buffer, at: number) => void): void {
    const block = this.#blocks.find(
      ({ address, length }) => iova >= address && iova + bytes.length <= address + length,
    );
    if (block === undefined) {
      throw operationFailed('guest memory', 'open', ERRNO.ENOENT, `no RAM at ${iova}, ${bytes.length} bytes`);
    }
    for (let done = 0; done < bytes.length; ) {
      const offset = iova - block.address + done;
      const at = offset % CHUNK_BYTES;
      const part = bytes.subarray(done, done + Math.min(bytes.length - done, CHUNK_BYTES - at));
      copy(part, block.chunks[Math.floor(offset / CHUNK_BYTES)]!, at);
      done += part.length;
    }
  }
}
