/**
 * What a receiving thread does per packet; free functions over views that were made once.
 *
 * Content goes from the socket straight to its pages, or (RAM in a file) to memory from which they are written. The same call takes as much of the next header as has arrived: one system call a packet
 * when the peer is fast. Bytes of the next header are only kept, never looked at before the packet's own turn (SYNC).
 */
import { addressOf, IoVector } from '../native/index.ts';
import {
  MULTIFD_COMMON_BYTES,
  MULTIFD_FLAG,
  MultifdHeaderDecoder,
  multifdHeaderBytes,
  multifdPacketFlags,
  multifdPagesMax,
  unsupported,
  wireError,
} from '../wire/multifd/index.ts';
import { type Control, Counter, STOP, Word } from './control-words.ts';
import { channelLabel } from './errors.ts';
import type { ReceiveStart } from './messages.ts';
import { sharedBuffer } from './page-codecs/codec.ts';
import { openDecoder, type PageDecoder } from './page-codecs/index.ts';
import { type PageTarget, pageTarget } from './pages/page-target.ts';
import { runLength } from './pages/runs.ts';

export const RECEIVED = { PAGES: 0, SYNC: 1, END: 2, LATE_PAGES: 3 } as const;
export type Received = (typeof RECEIVED)[keyof typeof RECEIVED];

export interface ReceiveState {
  readonly fd: number;
  readonly pageSize: number;
  readonly target: PageTarget;
  readonly packet: MultifdHeaderDecoder;
  readonly decoder: PageDecoder | undefined;
  readonly header: Buffer;
  readonly headerAddress: number;
  /** Bytes of the next header that are here. */
  have: number;
  readonly vector: IoVector;
  readonly words: Int32Array;
  readonly counters: Float64Array;
  /** `origin`: offset in the channel of the packet. */
  readonly place: { readonly stream: string; origin: number };
}

export function receiveState(start: ReceiveStart, { words, counters }: Control): ReceiveState {
  const { pageSize, blocks } = start.ram;
  const header = sharedBuffer(multifdHeaderBytes(pageSize));
  return {
    fd: start.fd,
    pageSize,
    target: pageTarget(start.ram),
    packet: new MultifdHeaderDecoder(pageSize, blocks, start.compression),
    decoder: openDecoder(start.compression),
    header,
    headerAddress: addressOf(header),
    have: 0,
    vector: new IoVector(1 + multifdPagesMax(pageSize)),
    words,
    counters,
    place: { stream: channelLabel(start.channel), origin: start.offset },
  };
}

/**
 * Waits for the next packet and puts its pages where they belong. END: the peer has ended the channel, and no part of a packet is
 * lost. After STOP.AT_END pages are left alone: LATE_PAGES. Throws WireError, NATIVE_CALL, CodecRefusal, FileFailure.
 */
export function receivePacket(state: ReceiveState): Received {
  const { packet, header, place, counters } = state;
  if (!fillHeader(state, MULTIFD_COMMON_BYTES)) return RECEIVED.END;
  if ((multifdPacketFlags(place, header) & MULTIFD_FLAG.DEVICE_STATE) !== 0) {
    throw unsupported(place, place.origin, 'packet', 'device state on this channel', 'DEVICE_STATE');
  }
  if (!fillHeader(state, header.length)) return RECEIVED.END;
  packet.decode(place, header);
  state.have = 0;
  const { block, normalPages, zeroPages, offsets, payloadBytes } = packet;
  if (normalPages + zeroPages > 0 && isLate(state)) return RECEIVED.LATE_PAGES;
  if (normalPages > 0) receivePayload(state);
  for (let i = normalPages; i < normalPages + zeroPages; i++) state.target.clear(block, offsets[i]!);
  place.origin += header.length + payloadBytes;
  counters[Counter.PACKETS]! += 1;
  counters[Counter.NORMAL_PAGES]! += normalPages;
  counters[Counter.ZERO_PAGES]! += zeroPages;
  return packet.sync ? RECEIVED.SYNC : RECEIVED.PAGES;
}

/** No more pages may come. */
function isLate(state: ReceiveState): boolean {
  return Atomics.load(state.words, Word.STOP) === STOP.AT_END;
}

/** False at an end in front of the header; late also at an end inside it: main does not wait for what is missing. */
function fillHeader(state: ReceiveState, wanted: number): boolean {
  const { vector, header, counters } = state;
  while (state.have < wanted) {
    vector.clear();
    vector.push(state.headerAddress + state.have, header.length - state.have);
    const count = vector.receive(state.fd);
    if (count === 0) {
      if (state.have === 0 || isLate(state)) return false;
      throw truncated(state, state.have, wanted);
    }
    counters[Counter.BYTES]! += count;
    state.have += count;
  }
  return true;
}

function receivePayload(state: ReceiveState): void {
  const { packet, vector, header, decoder, counters, pageSize } = state;
  vector.clear();
  if (decoder === undefined) addPages(state);
  else vector.push(decoder.inputAddress, packet.payloadBytes);
  vector.push(state.headerAddress, header.length);
  while (vector.byteLength > header.length) {
    const count = vector.receive(state.fd);
    if (count === 0) {
      const missing = vector.byteLength - header.length;
      throw truncated(state, header.length + packet.payloadBytes - missing, header.length + packet.payloadBytes);
    }
    counters[Counter.BYTES]! += count;
  }
  state.have = header.length - vector.byteLength;
  const { block, offsets, normalPages } = packet;
  if (decoder !== undefined) {
    decoder.begin(packet.payloadBytes);
    for (let i = 0, run = 0; i < normalPages; i += run) {
      run = runLength(offsets, i, normalPages, pageSize);
      decoder.decode(state.target.addressOf(block, i, offsets[i]!), run * pageSize);
    }
    decoder.end();
  }
  state.target.placed(block, offsets, normalPages);
}

function addPages({ packet, pageSize, vector, target }: ReceiveState): void {
  const { block, offsets, normalPages } = packet;
  for (let i = 0, run = 0; i < normalPages; i += run) {
    run = runLength(offsets, i, normalPages, pageSize);
    vector.push(target.addressOf(block, i, offsets[i]!), run * pageSize);
  }
}

function truncated(state: ReceiveState, available: number, wanted: number) {
  const { stream, origin } = state.place;
  const offset = origin + available;
  return wireError({ code: 'WIRE_TRUNCATED', stream, offset, path: 'packet', wanted, available });
}
