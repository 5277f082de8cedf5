/** The embedded machine with devices in its slots: emulated VFs, and devices behind vfio-user servers. */
import { DEVICE_MEMORY_ADDRESS, type DeviceMemory } from '../machine/index.ts';
import { windowPart } from './emulated/dma.ts';
import type { DeviceEvidence } from './emulated/emulated-device.ts';
import { EmulatedVf } from './emulated/emulated-vf.ts';
import type { VfOptions } from './emulated/options.ts';
import type { DeviceDeadlines } from './machine/guarded-device.ts';
import { RamSpace } from './machine/ram-space.ts';
import { together } from './machine/running.ts';
import type { PluggedDevice } from './machine/slot.ts';
import { type DeviceHost, VfioMachine } from './machine/vfio-machine.ts';
import { openUserDevice, type UserDevice } from './user-client/device.ts';

/** Devices on the bus before ours. */
const FIRST_SLOT = 4;
const SLOTS_PER_BUS = 32;
/** Four buses. */
export const DEVICES_MAX = 4 * SLOTS_PER_BUS - FIRST_SLOT;

export type DeviceSpec =
  | { readonly driver: 'vf'; readonly options: VfOptions }
  /** `dmaBytes`: guest memory for it alone, at the next place among those of all devices; the server has to be told the address. */
  | { readonly driver: 'vfio-user'; readonly socket: string; readonly dmaBytes: number };

/** A machine made with the `deviceMemoryOf` its devices. */
export interface PluggableHost extends DeviceHost {
  deviceMemory(): DeviceMemory;
}

export interface PlugOptions {
  readonly deadlines?: DeviceDeadlines;
}

export interface DevicesInMachine {
  readonly machine: VfioMachine;
  readonly vfs: readonly EmulatedVf[];
  /** Of every VF, the machine stopped. */
  evidence(): Promise<readonly DeviceEvidence[]>;
  /** Ends the VFs' threads and the connections to servers. Never throws. */
  close(): Promise<void>;
}

/** Guest memory of their own that these devices write to, bytes. */
export function deviceMemoryOf(devices: readonly DeviceSpec[]): number {
  return devices.reduce((sum, device) => sum + dmaBytesOf(device), 0);
}

function dmaBytesOf(device: DeviceSpec): number {
  return device.driver === 'vf' ? device.options['dma-size'] : device.dmaBytes;
}

/** Address of slot `index` as QEMU writes it: domain, bus, slot, function. */
function slotPath(index: number): string {
  const hex = (value: number) => value.toString(16).padStart(2, '0');
  const slot = FIRST_SLOT + index;
  return `0000:${hex(Math.floor(slot / SLOTS_PER_BUS))}:${hex(slot % SLOTS_PER_BUS)}.0`;
}

/** Opens the devices, in slots in their order; VFs are called vf0, vf1 ... and each writes to the next. Throws what opening one throws. */
export async function plugDevices(
  host: PluggableHost,
  specs: readonly DeviceSpec[],
  options: PlugOptions = {},
): Promise<DevicesInMachine> {
  const opening = openAll(host, specs);
  const close = async () => {
    const opened = await Promise.allSettled(opening);
    await Promise.all(opened.map((one) => (one.status === 'fulfilled' ? one.value.device.close() : undefined)));
  };
  try {
    const opened = await Promise.all(opening);
    const vfs = opened.map(({ device }) => device).filter((device) => device instanceof EmulatedVf);
    if (vfs.length > 1) await together([...vfs.keys()], async (i) => vfs[i]!.attachPeer(vfs[(i + 1) % vfs.length]));
    const plugged = opened.map((one, slot) => ({ ...one, idstr: `${slotPath(slot)}/vfio`, instance: 0 }));
    const machine = await VfioMachine.plug(host, plugged, options.deadlines);
    return { machine, vfs, evidence: () => Promise.all(vfs.map((vf) => vf.evidence())), close };
  } catch (error) {
    await close();
    throw error;
  }
}

type Opened = Pick<PluggedDevice, 'connectMemory'> & { readonly device: EmulatedVf | UserDevice };

function openAll(host: PluggableHost, specs: readonly DeviceSpec[]): Promise<Opened>[] {
  let vfs = 0;
  let dmaAt = 0;
  return specs.map((spec) => {
    const at = dmaAt;
    dmaAt += dmaBytesOf(spec);
    if (spec.driver === 'vfio-user') return openUser(host, spec.socket);
    return openVf(host, `vf${vfs++}`, spec.options, at);
  });
}

async function openVf(host: PluggableHost, name: string, options: VfOptions, dmaAt: number): Promise<Opened> {
  const device = await EmulatedVf.open({ name, options, dmaIova: DEVICE_MEMORY_ADDRESS + dmaAt });
  const length = options['dma-size'];
  const connectMemory = () =>
    device.attachWindow(length === 0 ? undefined : windowPart(host.deviceMemory(), dmaAt, length));
  return { device, connectMemory };
}

/** A device of another process: it is told of all RAM, and reaches it by messages. */
async function openUser(host: PluggableHost, socket: string): Promise<Opened> {
  const device = await openUserDevice({ socket });
  try {
    await device.learnConfig();
  } catch (error) {
    await device.close();
    throw error;
  }
  const connectMemory = async () => {
    const space = new RamSpace(host.ram, host.sharedRam());
    await device.attachMemory({ ranges: space.ranges, space });
    // A device that waits for its state must not touch the guest's memory while that arrives.
    if (host.runState !== 'inmigrate') await device.enable();
  };
  return { device, connectMemory };
}
