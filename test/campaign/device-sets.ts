/** Machines with emulated VFs for campaigns: small devices of all kinds, one to four in a machine. */
import type { WorkloadOptions } from '../../src/machine/index.ts';
import { type VfOptions, type VfParameters, vfOptions } from '../../src/vfio/index.ts';
import type { VfSide } from '../support/vf-machines.ts';

const KIB = 1024;
const RAM = 2 * 1024 * KIB;

export const TINY: Partial<VfParameters> = {
  'state-size': 768 * KIB,
  'initial-size': 512 * KIB,
  'working-set': 128 * KIB,
  'state-rate': 1.5e6,
  'dma-size': 256 * KIB,
  'dma-rate': 1e6,
};

export interface DeviceSet {
  readonly title: string;
  readonly machineType: string;
  readonly vfs: readonly Partial<VfParameters>[];
  readonly configLoad?: 'after-iterables' | 'serial';
}

const WHOLE: Partial<VfParameters> = {};
const LATE: Partial<VfParameters> = { precopy: false, 'config-lock': true, 'config-load-ms': 5 };
const PLAIN: Partial<VfParameters> = { precopy: false, p2p: false, deadlines: false, 'dma-logging': false };
const SLOW: Partial<VfParameters> = { 'allocation-ms': 40, 'load-bandwidth': 50e6, 'save-bandwidth': 50e6 };

/** Devices without P2P may be written to by their peers when they have stopped: where there are some, peers do not write. */
export const DEVICE_SETS: readonly DeviceSet[] = [
  { title: '4 VFs', machineType: 'workload-11.1', vfs: [WHOLE, LATE, { ...SLOW, 'config-lock': true }, LATE] },
  {
    title: '3 VFs, old machine type',
    machineType: 'workload-9.2',
    vfs: [
      { ...WHOLE, p2p: false, 'peer-rate': 0 },
      { ...PLAIN, 'peer-rate': 0 },
      { ...SLOW, 'peer-rate': 0 },
    ],
  },
  {
    title: '2 VFs, one without PRE_COPY',
    machineType: 'workload-10.0',
    vfs: [LATE, SLOW],
    configLoad: 'after-iterables',
  },
  { title: '1 VF', machineType: 'workload-11.1', vfs: [WHOLE] },
];

export function guestOf({ machineType }: DeviceSet, seed: number): WorkloadOptions {
  return { ram: RAM, vcpus: 1, dirtyRate: 2e6, seed, machineType };
}

export function devicesOf({ vfs }: DeviceSet, seed: number): VfSide & { vfs: VfOptions[] } {
  return { vfs: vfs.map((one, i) => vfOptions({ ...TINY, ...one, seed: seed + i })) };
}

/** RAM and state of devices together, bytes. */
export function bytesOf({ vfs }: DeviceSet): number {
  return RAM + vfs.length * (TINY['state-size']! + TINY['dma-size']!);
}

/** The switchover comes when that much is left of each device: some rounds with pre-copy, and all of a device that has none in the last. */
export function switchoverAt(set: DeviceSet): {
  readonly 'downtime-limit': number;
  readonly 'avail-switchover-bandwidth': number;
  readonly 'x-device-config-load': string;
} {
  return {
    'downtime-limit': 1000,
    'avail-switchover-bandwidth': 1_000_000 * (1 + set.vfs.length),
    'x-device-config-load': set.configLoad ?? 'parallel',
  };
}
