/** What a receiving thread does with a packet of device state. */
import { unreachable } from '../../base/index.ts';
import { DeviceStateDecoder, MULTIFD_DEVICE_HEADER_BYTES } from '../../wire/multifd/index.ts';
import type { ChannelReader } from '../channel-reader.ts';
import { Counter } from '../control-words.ts';
import { StateRefusal } from '../errors.ts';
import { sayMoved } from '../run-thread.ts';
import type { StateLoader } from './loader.ts';
import { OFFER } from './reassembly.ts';
import { CLOSED, type StateQueue } from './state-queue.ts';

export interface StateReceiver {
  readonly queue: StateQueue;
  readonly decoder: DeviceStateDecoder;
  /** By device; undefined where a consumer takes the buffers. */
  readonly loaders: readonly (StateLoader | undefined)[];
}

export function stateReceiverOf(queue: StateQueue, loaders: readonly (StateLoader | undefined)[]): StateReceiver {
  return { queue, decoder: new DeviceStateDecoder(queue.shared.devices), loaders };
}

/**
 * Brings the packet at the reader to its device. Waits for a slot, with the channel held up meanwhile. False: the channel has ended in front of
 * the state, or the queue was closed. Throws WireError, NATIVE_CALL, StateRefusal.
 */
export function receiveState(receiver: StateReceiver, reader: ChannelReader, counters: Float64Array): boolean {
  const { queue, decoder } = receiver;
  if (!reader.fill(MULTIFD_DEVICE_HEADER_BYTES)) return false;
  decoder.decode(reader.place, reader.header);
  const { device, index, isConfig, stateBytes } = decoder;
  const slot = queue.admit(reader.channel, device, index, isConfig, sayMoved);
  if (slot === CLOSED) return false;
  if (slot < 0) throw refusal(queue, device, index, slot);
  receiveBytes(reader, queue, slot, stateBytes);
  reader.finish(MULTIFD_DEVICE_HEADER_BYTES + stateBytes);
  counters[Counter.STATE_BYTES]! += stateBytes;
  if (queue.arrived(slot, stateBytes)) bringOn(receiver, device, reader.channel);
  return true;
}

function receiveBytes(reader: ChannelReader, queue: StateQueue, slot: number, stateBytes: number): void {
  const done = reader.take(MULTIFD_DEVICE_HEADER_BYTES, stateBytes, queue.room(slot));
  if (done === stateBytes) return;
  reader.vector.clear();
  reader.vector.push(queue.address(slot) + done, stateBytes - done);
  reader.receive(MULTIFD_DEVICE_HEADER_BYTES, done);
}

/** The device can take a buffer: tells its consumer, or loads here what is here of it. The configuration is always for main. */
function bringOn({ queue, loaders }: StateReceiver, device: number, channel: number): void {
  const loader = loaders[device];
  if (loader === undefined) {
    if (queue.wanted(device)) sayMoved();
    return;
  }
  if (!queue.waitUntilOpen(channel, sayMoved)) return;
  for (;;) {
    const slot = queue.takeState(device);
    if (slot < 0) break;
    try {
      loader.load(queue.bytes(slot));
    } catch (thrown) {
      const reason = thrown instanceof Error ? thrown.message : String(thrown);
      const { idstr, instance } = queue.shared.devices[device]!;
      const index = queue.next(device);
      throw new StateRefusal({ code: 'DATAPLANE_STATE_LOAD', idstr, instance, index, reason }, thrown);
    }
    queue.release(slot);
  }
  if (queue.wanted(device)) sayMoved();
}

function refusal(queue: StateQueue, device: number, index: number, offer: number): StateRefusal {
  const { idstr, instance } = queue.shared.devices[device]!;
  const wrong = offer as typeof OFFER.DUPLICATE | typeof OFFER.BEHIND_LAST | typeof OFFER.NOT_LAST;
  return new StateRefusal({ code: 'DATAPLANE_STATE_ORDER', idstr, instance, index, wrong: wrongOrder(wrong) });
}

function wrongOrder(offer: typeof OFFER.DUPLICATE | typeof OFFER.BEHIND_LAST | typeof OFFER.NOT_LAST) {
  switch (offer) {
    case OFFER.DUPLICATE:
      return 'it has come before';
    case OFFER.BEHIND_LAST:
      return 'it is behind the last one';
    case OFFER.NOT_LAST:
      return 'it is marked as the last, but is not';
    default:
      return unreachable(offer);
  }
}
