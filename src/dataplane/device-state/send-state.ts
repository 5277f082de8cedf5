/** What a sending thread does with a buffer of device state. */
import { addressOf } from '../../native/index.ts';
import {
  type DeviceAddress,
  deviceStateHeader,
  MULTIFD_DEVICE_BYTES_MAX,
  writeDeviceBuffer,
} from '../../wire/multifd/index.ts';
import { STATE_BUFFER } from '../batch-ring.ts';
import { Counter } from '../control-words.ts';
import { sayMoved } from '../run-thread.ts';
import { type SendState, sendAll } from '../send-loop.ts';
import { type SharedStateArena, StateArena } from './state-arena.ts';

export interface StateSender {
  readonly arena: StateArena;
  readonly arenaAddress: number;
  /** By device. */
  readonly headers: readonly { readonly bytes: Buffer; readonly address: number }[];
}

export function stateSenderOf(devices: readonly DeviceAddress[], shared: SharedStateArena): StateSender {
  return {
    arena: new StateArena(shared),
    arenaAddress: addressOf(new Uint8Array(shared.memory)),
    headers: devices.map((device) => {
      const bytes = deviceStateHeader(device);
      return { bytes, address: addressOf(bytes) };
    }),
  };
}

/** Sends the buffer that the slot of the ring tells of as one packet, straight from the arena. Waits for the kernel. */
export function sendStateBuffer(sender: StateSender, state: SendState, slot: Uint32Array): void {
  const buffer = slot[STATE_BUFFER.BUFFER]!;
  const length = slot[STATE_BUFFER.LENGTH]!;
  const header = sender.headers[slot[STATE_BUFFER.DEVICE]!]!;
  writeDeviceBuffer(header.bytes, slot[STATE_BUFFER.INDEX]!, slot[STATE_BUFFER.IS_CONFIG] !== 0, length);
  const { vector, counters } = state;
  vector.clear();
  vector.push(header.address, header.bytes.length);
  if (length > 0) vector.push(sender.arenaAddress + buffer * MULTIFD_DEVICE_BYTES_MAX, length);
  sendAll(state);
  counters[Counter.STATE_BYTES]! += length;
  if (sender.arena.free(buffer)) sayMoved();
}
