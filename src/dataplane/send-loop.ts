/** What a sending thread does per batch and per SYNC; free functions over views that were made once. */
import { addressOf, IoVector, type OpenLine, openLine } from '../native/index.ts';
import {
  MULTIFD_COMPRESSION,
  MULTIFD_FLAG,
  multifdHeaderBytes,
  multifdPagesMax,
  writeMultifdHeader,
} from '../wire/multifd/index.ts';
import { BATCH } from './batch-ring.ts';
import { Counter } from './control-words.ts';
import type { SendStart } from './messages.ts';
import { sharedBuffer } from './page-codecs/codec.ts';
import { openEncoder, type PageEncoder } from './page-codecs/index.ts';
import { type PageSource, pageSource } from './pages/page-source.ts';

export interface SendState {
  readonly line: OpenLine;
  readonly pageSize: number;
  readonly source: PageSource;
  readonly names: readonly Buffer[];
  readonly findZeroPages: boolean;
  readonly encoder: PageEncoder | undefined;
  /** Of packets with pages: the compression method. */
  readonly flags: number;
  readonly header: Buffer;
  readonly headerAddress: number;
  readonly vector: IoVector;
  /** Bytes inside the block: normal pages from the front, zero pages behind them. */
  readonly offsets: Float64Array;
  readonly counters: Float64Array;
  packets: number;
}

export function sendState(start: SendStart, counters: Float64Array): SendState {
  const { pageSize, blocks } = start.ram;
  const pagesMax = multifdPagesMax(pageSize);
  const header = sharedBuffer(multifdHeaderBytes(pageSize));
  return {
    line: openLine(start.line),
    pageSize,
    source: pageSource(start.ram),
    names: blocks.map((block) => Buffer.from(block.idstr, 'latin1')),
    findZeroPages: start.findZeroPages,
    encoder: openEncoder(start.compression, start.level),
    flags: MULTIFD_COMPRESSION[start.compression],
    header,
    headerAddress: addressOf(header),
    vector: new IoVector(1 + pagesMax),
    offsets: new Float64Array(pagesMax),
    counters,
    packets: 0,
  };
}

/** Sends the batch in a slot of the ring as one packet: its header and, straight from where they are, its pages. Waits for the kernel. */
export function sendBatch(state: SendState, slot: Uint32Array): void {
  const { source, vector, offsets, encoder, pageSize } = state;
  const normal = source.select(slot, state.findZeroPages, offsets);
  const zero = slot[BATCH.COUNT]! - normal;
  vector.clear();
  vector.push(state.headerAddress, state.header.length);
  let payload = normal * pageSize;
  if (encoder === undefined) source.addTo(vector);
  else if (normal > 0) {
    for (let i = 0; i < normal; i++) source.copyPage(i, encoder.input, i * pageSize);
    payload = encoder.encode(payload);
    vector.push(encoder.outputAddress, payload);
  }
  const name = state.names[slot[BATCH.BLOCK]!]!;
  writeMultifdHeader(state.header, state.flags, name, normal, zero, payload, state.packets, offsets);
  sendAll(state);
  state.counters[Counter.NORMAL_PAGES]! += normal;
  state.counters[Counter.ZERO_PAGES]! += zero;
}

export function sendSync(state: SendState): void {
  writeMultifdHeader(state.header, MULTIFD_FLAG.SYNC, undefined, 0, 0, 0, state.packets, state.offsets);
  state.vector.clear();
  state.vector.push(state.headerAddress, state.header.length);
  sendAll(state);
}

/** Sends what is in the vector, as one packet. */
export function sendAll(state: SendState): void {
  const { vector, counters, line } = state;
  while (vector.byteLength > 0) counters[Counter.BYTES]! += line.send(vector);
  line.flush();
  counters[Counter.PACKETS]! += 1;
  state.packets++;
}
