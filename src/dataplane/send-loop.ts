/** What a sending thread does per batch and per SYNC; free functions over views that were made once. */
import { addressOf, IoVector } from '../native/index.ts';
import {
  MULTIFD_COMPRESSION,
  MULTIFD_FLAG,
  multifdHeaderBytes,
  multifdPagesMax,
  writeMultifdHeader,
} from '../wire/multifd/index.ts';
import { Counter } from './control-words.ts';
import type { SendStart } from './messages.ts';
import { sharedBuffer } from './page-codecs/codec.ts';
import { openEncoder, type PageEncoder } from './page-codecs/index.ts';
import { RamView } from './shared-ram.ts';

export interface SendState {
  readonly fd: number;
  readonly pageSize: number;
  readonly ram: RamView;
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
  readonly zeroOffsets: Float64Array;
  readonly counters: Float64Array;
  packets: number;
}

export function sendState(start: SendStart, counters: Float64Array): SendState {
  const { pageSize, blocks } = start.ram;
  const pagesMax = multifdPagesMax(pageSize);
  const header = sharedBuffer(multifdHeaderBytes(pageSize));
  return {
    fd: start.fd,
    pageSize,
    ram: new RamView(start.ram),
    names: blocks.map((block) => Buffer.from(block.idstr, 'latin1')),
    findZeroPages: start.findZeroPages,
    encoder: openEncoder(start.compression, start.level),
    flags: MULTIFD_COMPRESSION[start.compression],
    header,
    headerAddress: addressOf(header),
    vector: new IoVector(1 + pagesMax),
    offsets: new Float64Array(pagesMax),
    zeroOffsets: new Float64Array(pagesMax),
    counters,
    packets: 0,
  };
}

/** Sends the batch in a slot of the ring as one packet: its header and, straight from guest memory, its pages. Waits for the kernel. */
export function sendBatch(state: SendState, slot: Uint32Array): void {
  const block = slot[0]!;
  const count = slot[1]!;
  const { pageSize, offsets, zeroOffsets, ram, findZeroPages } = state;
  let normal = 0;
  let zero = 0;
  for (let i = 0; i < count; i++) {
    const offset = slot[2 + i]! * pageSize;
    // A store that comes between the look and the sending has set the page's bit in the dirty log: it is sent again.
    if (findZeroPages && ram.isZero(block, offset)) zeroOffsets[zero++] = offset;
    else offsets[normal++] = offset;
  }
  for (let i = 0; i < zero; i++) offsets[normal + i] = zeroOffsets[i]!;
  const { vector } = state;
  vector.clear();
  vector.push(state.headerAddress, state.header.length);
  let payload = 0;
  if (normal > 0)
    payload = state.encoder === undefined ? addPages(state, block, normal) : encodePages(state, block, normal);
  writeMultifdHeader(state.header, state.flags, state.names[block]!, normal, zero, payload, state.packets, offsets);
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

/** Neighbours in guest memory are one piece. */
function addPages(state: SendState, block: number, count: number): number {
  const { pageSize, offsets, vector } = state;
  const base = state.ram.addresses[block]!;
  let behind = -1;
  for (let i = 0; i < count; i++) {
    const offset = offsets[i]!;
    if (offset === behind) vector.extend(pageSize);
    else vector.push(base + offset, pageSize);
    behind = offset + pageSize;
  }
  return count * pageSize;
}

/** A running guest may write while the encoder reads: it gets a copy, which stays as it is. */
function encodePages(state: SendState, block: number, count: number): number {
  const { pageSize, offsets, ram } = state;
  const encoder = state.encoder!;
  for (let i = 0; i < count; i++) ram.copyPage(block, offsets[i]!, encoder.input, i * pageSize);
  const length = encoder.encode(count * pageSize);
  state.vector.push(encoder.outputAddress, length);
  return length;
}

function sendAll(state: SendState): void {
  const { vector, counters } = state;
  while (vector.byteLength > 0) counters[Counter.BYTES]! += vector.send(state.fd);
  counters[Counter.PACKETS]! += 1;
  state.packets++;
}
