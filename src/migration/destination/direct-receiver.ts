import { addressOf, IoVector } from '../../native/index.ts';
import type { Channel, DirectTransfer } from '../../transport/index.ts';
import {
  type DirectSink,
  isPageHeader,
  PAGE_HEADER_BYTES,
  type RamSink,
  type StreamInput,
  type StreamParser,
} from '../../wire/index.ts';

/** Records of one read: header and page are a piece of the vector each. */
const RECORDS_MAX = 512;
/** Fewer pages are not worth the trouble. */
const RECORDS_MIN = 4;
/** After a wrong guess, so many chunks are read in the ordinary way first. */
const CHUNKS_AFTER_MISS = 8;
/** The event loop gets its turn after so many bytes. */
const BYTES_PER_TURN = 8 * 1024 * 1024;

/**
 * Reads pages from the socket straight into guest memory. A page record is a header of 8 bytes and the page; in the first round the
 * pages come in order, so the vector can be laid out beforehand: header, page in its place, header, the next page in its place ... Every
 * header is compared with the one expected. From the first that differs on, the bytes are gathered again and go the ordinary way through
 * the parser. Only memory that nothing was put into is laid out, and what a wrong guess wrote there becomes zero again; it is never beyond
 * the run that the sink gave.
 */
export class DirectReceiver {
  readonly #transfer: DirectTransfer;
  readonly #sink: DirectSink;
  readonly #parser: StreamParser;
  readonly #input: StreamInput;
  readonly #pageSize: number;
  readonly #recordSize: number;
  readonly #vector = new IoVector(2 * RECORDS_MAX);
  readonly #headers: Buffer;
  readonly #headersAddress: number;
  /** Bytes that go the ordinary way after all. */
  #rest: Buffer;
  #pauseChunks = 0;
  #turnBytes = 0;

  private constructor(
    transfer: DirectTransfer,
    sink: DirectSink,
    parser: StreamParser,
    input: StreamInput,
    pageSize: number,
  ) {
    this.#transfer = transfer;
    this.#sink = sink;
    this.#parser = parser;
    this.#input = input;
    this.#pageSize = pageSize;
    this.#recordSize = PAGE_HEADER_BYTES + pageSize;
    this.#headers = Buffer.from(new ArrayBuffer(RECORDS_MAX * PAGE_HEADER_BYTES));
    this.#headersAddress = addressOf(this.#headers);
    this.#rest = Buffer.from(new ArrayBuffer(this.#recordSize));
  }

  /** Undefined where the channel or the sink has no direct way. */
  static of(
    channel: Channel,
    sink: RamSink,
    parser: StreamParser,
    input: StreamInput,
    pageSize: number,
  ): DirectReceiver | undefined {
    if (channel.direct === undefined || !isDirect(sink)) return undefined;
    return new DirectReceiver(channel.direct, sink, parser, input, pageSize);
  }

  /** A chunk has come the ordinary way. */
  chunkRead(): void {
    this.#turnBytes = 0;
    if (this.#pauseChunks > 0) this.#pauseChunks--;
  }

  /**
   * To be called when the parser has nothing left to read and the channel has no chunk. True: pages have been received, the parser may go on.
   * False: nothing to be had this way now.
   */
  receive(): boolean {
    if (this.#pauseChunks > 0 || this.#turnBytes >= BYTES_PER_TURN) return false;
    const decoder = this.#parser.ramDecoder;
    const next = decoder?.next;
    if (decoder === undefined || next === undefined) return false;
    const unread = this.#input.reader.available;
    if (unread >= this.#recordSize || !this.#expected(next.offset, unread)) return false;
    const run = this.#sink.fresh(next.block, next.offset, RECORDS_MAX);
    if (run === undefined || run.bytes.length < RECORDS_MIN * this.#pageSize) return false;

    this.#layOut(run.address, run.bytes, unread);
    const received = this.#transfer.receive(this.#vector);
    if (received === 0) return false;
    this.#turnBytes += received;
    const total = unread + received;
    const right = this.#countRight(next.offset, total);
    this.#sink.filled(next.block, next.offset, right);
    decoder.passed(right);
    const done = right * this.#recordSize;
    // What is behind the pages in place: part of the next record, or all from a header on that was not the expected one.
    const rest = this.#gather(run.bytes, right, total - done);
    this.#input.replace(done, rest);
    if (this.#missed(next.offset, right, total)) {
      run.bytes.fill(0, right * this.#pageSize, Math.ceil(total / this.#recordSize) * this.#pageSize);
      this.#pauseChunks = CHUNKS_AFTER_MISS;
    }
    return true;
  }

  /** Whether the unread bytes can be the beginning of the expected record. They are copied to where the rest of it will come. */
  #expected(offset: number, unread: number): boolean {
    const { reader } = this.#input;
    const headerBytes = Math.min(unread, PAGE_HEADER_BYTES);
    reader.bytes.copy(this.#headers, 0, reader.pos, reader.pos + headerBytes);
    return headerBytes < PAGE_HEADER_BYTES || isPageHeader(this.#headers, 0, offset);
  }

  #layOut(address: number, memory: Buffer, unread: number): void {
    const vector = this.#vector;
    const { reader } = this.#input;
    vector.clear();
    const headerBytes = Math.min(unread, PAGE_HEADER_BYTES);
    const pageBytes = unread - headerBytes;
    if (headerBytes < PAGE_HEADER_BYTES)
      vector.push(this.#headersAddress + headerBytes, PAGE_HEADER_BYTES - headerBytes);
    reader.bytes.copy(memory, 0, reader.pos + headerBytes, reader.end);
    vector.push(address + pageBytes, this.#pageSize - pageBytes);
    const pages = memory.length / this.#pageSize;
    for (let i = 1; i < pages; i++) {
      vector.push(this.#headersAddress + i * PAGE_HEADER_BYTES, PAGE_HEADER_BYTES);
      vector.push(address + i * this.#pageSize, this.#pageSize);
    }
  }

  /** Whole records from the first on whose headers are the expected ones. */
  #countRight(offset: number, total: number): number {
    const whole = Math.floor(total / this.#recordSize);
    for (let i = 0; i < whole; i++) {
      if (!isPageHeader(this.#headers, i * PAGE_HEADER_BYTES, offset + i * this.#pageSize)) return i;
    }
    return whole;
  }

  #missed(offset: number, right: number, total: number): boolean {
    if (total - right * this.#recordSize < PAGE_HEADER_BYTES) return false;
    return !isPageHeader(this.#headers, right * PAGE_HEADER_BYTES, offset + right * this.#pageSize);
  }

  /** `count` bytes of the stream from record `first` on, contiguous again. */
  #gather(memory: Buffer, first: number, count: number): Buffer {
    if (this.#rest.length < count) this.#rest = Buffer.from(new ArrayBuffer(RECORDS_MAX * this.#recordSize));
    const rest = this.#rest;
    for (let at = 0, record = first; at < count; record++) {
      const headerAt = record * PAGE_HEADER_BYTES;
      this.#headers.copy(rest, at, headerAt, headerAt + Math.min(PAGE_HEADER_BYTES, count - at));
      at += PAGE_HEADER_BYTES;
      if (at >= count) break;
      const pageAt = record * this.#pageSize;
      memory.copy(rest, at, pageAt, pageAt + Math.min(this.#pageSize, count - at));
      at += this.#pageSize;
    }
    return rest.subarray(0, count);
  }
}

function isDirect(sink: RamSink): sink is DirectSink {
  return 'fresh' in sink && 'filled' in sink;
}
