import { clearSharedBit, setSharedBit, testBit } from '../../base/index.ts';
import type { FileRam } from '../../machine/index.ts';
import { NativeError, readAtAddress, startWriteback, writeFromAddress } from '../../native/index.ts';
import { FileFailure } from '../errors.ts';

/** A thread tells the disk to begin after so many bytes: what is left for the last sync, which the stopped guest waits for, stays small. */
const WRITEBACK_BYTES = 32 * 1024 * 1024;

/**
 * One thread's view of RAM in a file. A page is written first, then its bit is set: who sees the bit finds the page. Two threads never have the same
 * page at the same time (SYNC stands between its versions), but pages that share a word of the bitmap.
 */
export class FileView {
  readonly ram: FileRam;
  readonly #bitmaps: readonly Uint32Array[];
  readonly #touched: Int32Array;
  #unwritten = 0;

  constructor(ram: FileRam) {
    this.ram = ram;
    this.#bitmaps = ram.blocks.map((block) => new Uint32Array(block.bitmap));
    this.#touched = new Int32Array(ram.touched);
  }

  /** The file has the page; else it is zero. */
  has(block: number, offset: number): boolean {
    return testBit(this.#bitmaps[block]!, offset / this.ram.pageSize);
  }

  /** Neighbouring pages that the file has, to `address`. Throws FileFailure. */
  read(block: number, offset: number, address: number, length: number): void {
    const { fd } = this.ram;
    const position = this.ram.blocks[block]!.pagesOffset + offset;
    let count: number;
    try {
      count = readAtAddress(fd, address, length, position);
    } catch (thrown) {
      throw this.#failure('read', position, thrown);
    }
    if (count < length) throw this.#failure('read', position + count, undefined);
  }

  /** Neighbouring pages, from `address`. Throws FileFailure. */
  write(block: number, offset: number, address: number, length: number): void {
    const { fd, direct, pageSize } = this.ram;
    const position = this.ram.blocks[block]!.pagesOffset + offset;
    try {
      writeFromAddress(fd, address, length, position);
      this.#unwritten += length;
      if (!direct && this.#unwritten >= WRITEBACK_BYTES) {
        this.#unwritten = 0;
        startWriteback(fd);
      }
    } catch (thrown) {
      throw this.#failure('write', position, thrown);
    }
    const bitmap = this.#bitmaps[block]!;
    const end = (offset + length) / pageSize;
    for (let page = offset / pageSize; page < end; page++) setSharedBit(bitmap, page);
    this.#touch(block);
  }

  /** The page is zero from now on. */
  clear(block: number, offset: number): void {
    clearSharedBit(this.#bitmaps[block]!, offset / this.ram.pageSize);
    this.#touch(block);
  }

  #touch(block: number): void {
    if (this.#touched[block] === 0) Atomics.store(this.#touched, block, 1);
  }

  #failure(operation: 'read' | 'write', position: number, thrown: unknown): FileFailure {
    const native =
      thrown instanceof NativeError && thrown.fault.code === 'NATIVE_CALL' ? thrown.fault.errno : undefined;
    const errno = thrown === undefined ? 'EOF' : (native ?? 'unknown');
    return new FileFailure({ path: this.ram.path, operation, position, errno }, thrown);
  }
}
