/** The embedded machine with emulated VFs in its slots. */
import { DEVICE_MEMORY_ADDRESS, type DeviceMemory } from '../machine/index.ts';
import { windowPart } from './emulated/dma.ts';
import type { DeviceEvidence } from './emulated/emulated-device.ts';
import { EmulatedVf } from './emulated/emulated-vf.ts';
import type { VfOptions } from './emulated/options.ts';
import type { DeviceDeadlines } from './machine/guarded-device.ts';
import { together } from './machine/running.ts';
import { type DeviceHost, VfioMachine } from './machine/vfio-machine.ts';

/** Devices on the bus before ours. */
const FIRST_SLOT = 4;
const SLOTS_PER_BUS = 32;
/** Keeps addresses short: four buses. */
export const VFS_MAX = 4 * SLOTS_PER_BUS - FIRST_SLOT;

/** A machine made with `deviceMemoryOf` its VFs. */
export interface VfHost extends DeviceHost {
  deviceMemory(): DeviceMemory;
}

export interface VfMachine {
  readonly machine: VfioMachine;
  readonly vfs: readonly EmulatedVf[];
  /** Of every VF, the machine stopped. */
  evidence(): Promise<readonly DeviceEvidence[]>;
  /** Ends all VFs' threads. Never throws. */
  close(): Promise<void>;
}

/** Guest memory that these VFs write to, bytes. */
export function deviceMemoryOf(vfs: readonly VfOptions[]): number {
  return vfs.reduce((sum, options) => sum + options['dma-size'], 0);
}

/** Address of slot `index` as QEMU writes it: domain, bus, slot, function. */
export function slotPath(index: number): string {
  const hex = (value: number) => value.toString(16).padStart(2, '0');
  const slot = FIRST_SLOT + index;
  return `0000:${hex(Math.floor(slot / SLOTS_PER_BUS))}:${hex(slot % SLOTS_PER_BUS)}.0`;
}

/** Opens the VFs vf0, vf1 ...; neighbours are peers. Throws what opening one throws; none is left open then. */
export async function plugVfs(
  host: VfHost,
  vfs: readonly VfOptions[],
  options: { readonly deadlines?: DeviceDeadlines; readonly loadConfigAfterIter?: boolean } = {},
): Promise<VfMachine> {
  const places: number[] = [];
  for (let at = 0, i = 0; i < vfs.length; at += vfs[i++]!['dma-size']) places.push(at);
  const opening = vfs.map((vf, i) =>
    EmulatedVf.open({ name: `vf${i}`, options: vf, dmaIova: DEVICE_MEMORY_ADDRESS + places[i]! }),
  );
  const close = async () => {
    const opened = await Promise.allSettled(opening);
    await Promise.all(opened.map((vf) => (vf.status === 'fulfilled' ? vf.value.close() : undefined)));
  };
  try {
    const devices = await Promise.all(opening);
    if (devices.length > 1) {
      await together([...devices.keys()], async (i) => devices[i]!.attachPeer(devices[(i + 1) % devices.length]));
    }
    const plugged = devices.map((device, i) => ({
      device,
      idstr: `${slotPath(i)}/vfio`,
      instance: 0,
      loadConfigAfterIter: options.loadConfigAfterIter ?? false,
      connectMemory: () => connectMemory(device, host, places[i]!, vfs[i]!['dma-size']),
    }));
    const machine = await VfioMachine.plug(host, plugged, options.deadlines);
    return { machine, vfs: devices, evidence: () => Promise.all(devices.map((vf) => vf.evidence())), close };
  } catch (error) {
    await close();
    throw error;
  }
}

function connectMemory(vf: EmulatedVf, host: VfHost, at: number, length: number): Promise<void> {
  return vf.attachWindow(length === 0 ? undefined : windowPart(host.deviceMemory(), at, length));
}
