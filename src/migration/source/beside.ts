/**
 * State of devices on the parallel channels, beside the stream (QEMU 10.0+): every device saves by itself, as fast as it can, and whatever
 * channel is free takes the next buffer.
 */
import { type OutgoingBuffer, SendChannels, type SentState } from '../../dataplane/index.ts';
import type { OutgoingState, SourceIterable, SourceMachine, StateRoom } from '../../machine/index.ts';
import type { CompatProfile, SettingsView } from '../../settings/index.ts';
import { pageCompression } from '../page-compression.ts';
import type { SourceRun } from './run.ts';

/** Of 1 MiB, for all devices together: some to fill while others are on their way. */
const BUFFERS_MIN = 16;
const BUFFERS_PER_DEVICE = 4;

type Beside = SourceIterable & Required<Pick<SourceIterable, 'completeBeside'>>;

/** Those whose state goes beside the stream; the destination finds the same rule (machine types from 10.0, packets as they are). */
function besideOf(machine: SourceMachine, settings: SettingsView, profile: CompatProfile): readonly Beside[] {
  if (!profile.vfioMultifdTransfer || !profile.sendSwitchoverStart || pageCompression(settings) !== 'none') return [];
  return machine.iterables.filter((iterable): iterable is Beside => iterable.completeBeside !== undefined);
}

/** What the channels must know of it when they start; undefined: nothing goes there. */
export function besideState({ machine, settings, profile }: SourceRun): SentState | undefined {
  const devices = besideOf(machine, settings, profile).map(({ idstr, instance }) => ({ idstr, instance }));
  if (devices.length === 0) return undefined;
  return { devices, buffers: Math.max(BUFFERS_MIN, BUFFERS_PER_DEVICE * devices.length) };
}

/** Machine stopped, SWITCHOVER_START sent: resolves when all of it has been given to the channels. Throws the first failure. */
export async function completeBeside({ machine, settings, profile, links }: SourceRun): Promise<void> {
  const { channels } = links;
  // Into a checkpoint nothing goes beside the stream.
  if (!(channels instanceof SendChannels)) return;
  const devices = besideOf(machine, settings, profile);
  await Promise.all(devices.map((one, device) => one.completeBeside(new DevicePackets(channels, device))));
}

class DevicePackets implements OutgoingState {
  readonly #channels: SendChannels;
  readonly #device: number;
  #index = 0;

  constructor(channels: SendChannels, device: number) {
    this.#channels = channels;
    this.#device = device;
  }

  async buffer(): Promise<StateRoom> {
    for (;;) {
      const room = this.#channels.takeBuffer();
      if (room !== undefined) return room;
      await this.#channels.stateRoom();
    }
  }

  async send(room: StateRoom, length: number, isConfig: boolean): Promise<void> {
    const index = this.#index++;
    while (!this.#channels.sendState(this.#device, index, isConfig, room as OutgoingBuffer, length))
      await this.#channels.room();
  }

  drop(room: StateRoom): void {
    this.#channels.dropBuffer(room as OutgoingBuffer);
  }
}
