/** What moving a device takes, as its machine knows it. */
import type { DeviceFigures } from '../../machine/index.ts';
import { type DeviceToLoad, loadCostOf } from './load-record.ts';
import type { Slot } from './slot.ts';

/** At a destination like this side, from now on. `stopMs`: what stopping takes. */
export function toLoadThere({ device, record, outgoing }: Slot, stopMs: number): DeviceToLoad {
  const { figures } = record;
  // Whoever has got data has begun; and to start takes about as long as to stop.
  const allocationMs = Math.max(0, figures.allocationMs - outgoing.sendingForMs);
  return { figures, allocationMs, startMs: stopMs, lock: device.needsMachineLock };
}

/** At this side. */
export function toLoadHere({ device, record }: Slot): DeviceToLoad {
  const { figures, begun, startMs } = record;
  return { figures, allocationMs: begun ? 0 : figures.allocationMs, startMs, lock: device.needsMachineLock };
}

/** Never rejects: a device that does not say how much it would save is asked for nothing else. */
export async function figuresOf(slot: Slot): Promise<DeviceFigures> {
  const { device, idstr, instance } = slot;
  const asked = device.features.stopCopySize && !device.lost;
  const stateBytes = asked ? await device.stopCopySize().catch(() => undefined) : undefined;
  return { idstr, instance, stateBytes, load: loadCostOf([toLoadHere(slot)], 'in line') };
}
