/**
 * What a receiving thread does per packet; free functions over views that were made once.
 *
 * Content goes from the socket straight to its pages, or (RAM in a file) to memory from which they are written. The same call takes as much of the
 * next header as has arrived: one system call a packet when the peer is fast. Bytes of the next header are only kept, never looked at before
 * the packet's own turn (SYNC).
 */
import {
  MULTIFD_COMMON_BYTES,
  MULTIFD_FLAG,
  MultifdHeaderDecoder,
  multifdHeaderBytes,
  multifdPacketFlags,
  multifdPagesMax,
  unsupported,
} from '../wire/multifd/index.ts';
import { ChannelReader } from './channel-reader.ts';
import { type Control, Counter } from './control-words.ts';
import { receiveState, type StateReceiver } from './device-state/receive-state.ts';
import type { ReceiveStart } from './messages.ts';
import { openDecoder, type PageDecoder } from './page-codecs/index.ts';
import { type PageTarget, pageTarget } from './pages/page-target.ts';
import { runLength } from './pages/runs.ts';

export const RECEIVED = { PACKET: 0, SYNC: 1, END: 2, LATE_PAGES: 3 } as const;
export type Received = (typeof RECEIVED)[keyof typeof RECEIVED];

export interface Receiver {
  readonly reader: ChannelReader;
  readonly pageSize: number;
  readonly target: PageTarget;
  readonly packet: MultifdHeaderDecoder;
  readonly decoder: PageDecoder | undefined;
  /** Undefined: no device sends its state here. */
  readonly state: StateReceiver | undefined;
  readonly counters: Float64Array;
}

export function receiverOf(start: ReceiveStart, control: Control, state?: StateReceiver): Receiver {
  const { pageSize, blocks } = start.ram;
  return {
    reader: new ChannelReader(start, multifdHeaderBytes(pageSize), multifdPagesMax(pageSize), control),
    pageSize,
    target: pageTarget(start.ram),
    packet: new MultifdHeaderDecoder(pageSize, blocks, start.compression),
    decoder: openDecoder(start.compression),
    state,
    counters: control.counters,
  };
}

/**
 * Waits for the next packet and puts what it holds where it belongs. END: the peer has ended the channel, and no part of a packet is
 * lost. After STOP.AT_END pages are left alone: LATE_PAGES. Throws WireError, NATIVE_CALL, CodecRefusal, FileFailure, StateRefusal.
 */
export function receivePacket(receiver: Receiver): Received {
  const { reader, packet, target, counters, state } = receiver;
  const { header, place } = reader;
  if (!reader.fill(MULTIFD_COMMON_BYTES)) return RECEIVED.END;
  if ((multifdPacketFlags(place, header) & MULTIFD_FLAG.DEVICE_STATE) !== 0) {
    if (state === undefined) throw unsupported(place, place.origin, 'packet', 'device state here', 'DEVICE_STATE');
    return receiveState(state, reader, counters) ? RECEIVED.PACKET : RECEIVED.END;
  }
  if (!reader.fill(header.length)) return RECEIVED.END;
  packet.decode(place, header);
  reader.take(header.length);
  const { block, normalPages, zeroPages, offsets, payloadBytes } = packet;
  if (normalPages + zeroPages > 0 && reader.isLate) return RECEIVED.LATE_PAGES;
  if (normalPages > 0) receivePages(receiver);
  if (zeroPages > 0) target.clear(block, offsets, normalPages, normalPages + zeroPages);
  reader.finish(header.length + payloadBytes);
  counters[Counter.NORMAL_PAGES]! += normalPages;
  counters[Counter.ZERO_PAGES]! += zeroPages;
  return packet.sync ? RECEIVED.SYNC : RECEIVED.PACKET;
}

function receivePages({ packet, reader, decoder, pageSize, target }: Receiver): void {
  const { block, offsets, normalPages, payloadBytes } = packet;
  const { vector, header } = reader;
  vector.clear();
  if (decoder === undefined) {
    for (let i = 0, run = 0; i < normalPages; i += run) {
      run = runLength(offsets, i, normalPages, pageSize);
      vector.push(target.addressOf(block, i, offsets[i]!), run * pageSize);
    }
  } else vector.push(decoder.inputAddress, payloadBytes);
  reader.receive(header.length, 0);
  if (decoder !== undefined) {
    decoder.begin(payloadBytes);
    for (let i = 0, run = 0; i < normalPages; i += run) {
      run = runLength(offsets, i, normalPages, pageSize);
      decoder.decode(target.addressOf(block, i, offsets[i]!), run * pageSize);
    }
    decoder.end();
  }
  target.placed(block, offsets, normalPages);
}
