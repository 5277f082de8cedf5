/** What the machine of one end has and that of the other has not: devices, what they can do, and the machine itself. */
import type { VfParameters } from '../../../src/vfio/index.ts';
import type { Having, Row } from './model.ts';

const MIB = 1024 * 1024;

/** Small; what one has that is not said here it has by default: PRE_COPY, P2P, a log of its writes, deadlines. */
const VF: Partial<VfParameters> = {
  'state-size': MIB,
  'working-set': MIB / 4,
  'dma-size': MIB / 4,
  'state-rate': 2e6,
  'dma-rate': 2e6,
};

/** Ways in which devices' state goes, that know of different things. */
const WAYS: readonly (Having & { readonly title: string; readonly machineType?: string })[] = [
  { title: '' },
  { title: ', multifd', capabilities: ['multifd'] },
  { title: ', switchover-ack', capabilities: ['return-path', 'switchover-ack'] },
  {
    title: ', switchover-ack of 11.0',
    capabilities: ['return-path', 'switchover-ack'],
    machineType: 'workload-11.0',
  },
];

/** A feature as the one end's device has it; the other's is like VF. */
const FEATURES: readonly [title: string, one: Partial<VfParameters>][] = [
  ['precopy=off', { precopy: false }],
  ['p2p=off', { p2p: false, 'peer-rate': 0 }],
  ['dma-logging=off', { 'dma-logging': false }],
  ['deadlines=off', { deadlines: false }],
  ['config-lock=on', { 'config-lock': true }],
  ['initial-size=256K', { 'initial-size': MIB / 4 }],
  ['state-size=2M', { 'state-size': 2 * MIB }],
  ['dma-size=512K', { 'dma-size': MIB / 2 }],
  ['allocation-ms=50', { 'allocation-ms': 50 }],
];

/** A refusal names the device, by its name or by that of its section, or the memory that it writes to. */
const DEVICE = /vf\d|vfio/;

const VF_ROWS: readonly Row[] = WAYS.flatMap(({ title, machineType, ...having }) => {
  const workload = machineType === undefined ? {} : { workload: { machineType } };
  const row = { kind: 'device', named: DEVICE, ends: 'vmferry' } as const;
  const presence: Row = {
    ...row,
    title: `a VF${title}`,
    both: { ...having, ...workload, vfs: [{ ...VF, 'dma-size': 0, 'dma-rate': 0 }] },
    one: {
      vfs: [
        { ...VF, 'dma-size': 0, 'dma-rate': 0 },
        { ...VF, 'dma-size': 0, 'dma-rate': 0 },
      ],
    },
  };
  const features = FEATURES.map(([feature, one]): Row => {
    const named = feature.startsWith('dma-size') ? /dma|device-memory|vfio|block/ : DEVICE;
    return {
      ...row,
      title: `VF with ${feature}${title}`,
      named,
      both: { ...having, ...workload, vfs: [VF] },
      one: { vfs: [{ ...VF, ...one }] },
    };
  });
  return [presence, ...features];
});

const UUID = '01234567-89ab-cdef-0123-456789abcdef';
const OTHER_UUID = 'fedcba98-7654-3210-fedc-ba9876543210';
const bytes = (uuid: string) => Buffer.from(uuid.replaceAll('-', ''), 'hex');

const MACHINE_ROWS: readonly Row[] = [
  {
    kind: 'device',
    title: 'a device (virtio-rng-pci)',
    named: /virtio-rng/,
    both: {},
    one: { args: ['-device', 'virtio-rng-pci'] },
    ends: 'qemu',
  },
  {
    kind: 'machine',
    title: 'more memory',
    named: /pc\.ram|workload\.ram|memory/,
    both: { workload: { ram: 2 * MIB } },
    one: { workload: { ram: 4 * MIB }, args: ['-m', '16M'] },
    ends: 'all',
  },
  {
    kind: 'machine',
    title: 'more vCPUs',
    named: /vCPU|cpu/,
    both: {},
    one: { workload: { vcpus: 2 }, args: ['-smp', '2'] },
    ends: 'all',
  },
  {
    kind: 'machine',
    title: 'another machine type',
    named: /machine type|-7\.0/,
    both: {},
    one: { workload: { machineType: 'workload-7.0' }, args: ['-machine', 'pc-i440fx-7.0'] },
    ends: 'all',
  },
  {
    kind: 'machine',
    title: 'another UUID, validate-uuid',
    named: /uuid|UUID/,
    both: { capabilities: ['validate-uuid'], workload: { uuid: bytes(UUID) }, args: ['-uuid', UUID] },
    one: { workload: { uuid: bytes(OTHER_UUID) }, args: ['-uuid', OTHER_UUID] },
    ends: 'all',
  },
];

export const DEVICE_ROWS: readonly Row[] = [...VF_ROWS, ...MACHINE_ROWS];
