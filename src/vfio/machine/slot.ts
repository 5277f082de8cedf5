import type { GuardedDevice, MigratableDevice } from './guarded-device.ts';
import type { IncomingDevice } from './incoming-device.ts';
import type { LoadRecord } from './load-record.ts';
import type { OutgoingDevice } from './outgoing-device.ts';

export interface PluggedDevice {
  readonly device: MigratableDevice;
  /** Name of its section: the path of its slot, and `/vfio`. */
  readonly idstr: string;
  readonly instance: number;
  /** Called whenever the machine has got its memory: from then on the device can reach it. */
  readonly connectMemory?: () => Promise<void>;
}

/** A plugged device, and what its machine keeps of it. */
export interface Slot extends PluggedDevice {
  readonly device: GuardedDevice;
  readonly outgoing: OutgoingDevice;
  readonly record: LoadRecord;
  /** Of the migration that comes in, from `configure` on. */
  incoming: IncomingDevice | undefined;
}
