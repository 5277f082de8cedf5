/** vmferry's own parameters: names that begin with x-, behind QEMU's in every list. */
import type { Ends } from './capabilities.ts';
import { type ParameterDeclaration, UINT64 } from './parameter-type.ts';

/** No bound: QEMU's UINT64_MAX as near as a number comes from below. */
const UINT64_MAX = UINT64 - 2048;

/** Of a wait (waits.ts): its longest time, ms. With `min` 0 there may be no limit. */
function longest(
  defaultMs: number,
  doc: string,
  { min = 1, ends }: { readonly min?: 0 | 1; readonly ends?: Ends } = {},
) {
  return {
    type: { kind: 'int', min, max: 2_000_000, unit: 'ms' },
    default: defaultMs,
    since: 'vmferry',
    support: 'yes',
    live: true,
    unstable: true,
    ...(ends === undefined ? {} : { ends }),
    doc,
  } as const;
}

export const OWN_PARAMETERS = {
  'x-device-config-load': {
    type: { kind: 'enum', values: ['parallel', 'after-iterables', 'serial'] },
    default: 'parallel',
    since: 'vmferry',
    support: 'yes',
    unstable: true,
    ends: 'destination',
    doc: "VFIO devices, destination: parallel loads each configuration when its device's state is loaded, those that need the machine lock one at a time; after-iterables waits for the state of all devices (QEMU's x-migration-load-config-after-iter); serial is QEMU's way over one channel: nothing goes on beside the stream.",
  },
  'x-migration-max-queued-buffers-size': {
    type: { kind: 'size', unit: 'bytes' },
    default: UINT64_MAX,
    since: 'vmferry',
    support: 'yes',
    unstable: true,
    ends: 'destination',
    doc: "VFIO devices, destination: most bytes of one device's state that wait for it when all devices have work; one buffer of 1 MiB always may. A property of vfio-pci in QEMU, with the same default.",
  },
  'x-postcopy-preempt-break-huge': {
    type: { kind: 'bool' },
    default: true,
    since: 'vmferry',
    support: 'yes',
    unstable: true,
    partOf: ['postcopy-preempt'],
    doc: 'postcopy-preempt, source: a huge page of the background is broken off for requested pages and finished behind them; off: requested pages wait until it is whole. A property of migration in QEMU 7.1 and 7.2, with the same default.',
  },
  'x-postcopy-preempt-channels': {
    type: { kind: 'int', min: 1, max: 16 },
    default: 2,
    since: 'vmferry',
    support: 'yes',
    unstable: true,
    ends: 'at most',
    settle: { rule: 'least', unasked: 16 },
    partOf: ['postcopy-preempt'],
    doc: 'postcopy-preempt: most channels for requested pages, so that none waits behind a larger one. Two ends that shake hands (x-vmferry-handshake) use as many as both allow; without a handshake, and so with every QEMU, there is one, whatever is asked for here. query-migrate tells how many there are.',
  },
  'x-switchover-ack-timeout': longest(
    60_000,
    'switchover-ack: how long a destination may be silent when nothing else keeps the guest from being stopped. After that the migration fails if the destination is vmferry, and goes on without its word if nobody knows whether it would ever give it.',
    { min: 0 },
  ),
  'x-connect-timeout': longest(30_000, 'Source: longest wait for a connection to be taken.'),
  'x-setup-timeout': longest(
    20_000,
    'Source: longest wait for a destination that is connected to read the stream and answer.',
  ),
  'x-handshake-timeout': longest(10_000, 'x-vmferry-handshake: longest wait for what the other end says.', {
    ends: 'offered',
  }),
  'x-handshake-insist': {
    type: { kind: 'bool' },
    default: false,
    since: 'vmferry',
    support: 'yes',
    unstable: true,
    ends: 'offered',
    doc: 'x-vmferry-handshake: what this end was given is used as it is, or the migration is refused by name; off, two ends that differ may settle at less.',
  },
  'x-stall-timeout': longest(
    120_000,
    'Source: how long a destination may take none of a piece (at most 512 KiB) that was sent; 0 is no limit.',
    { min: 0 },
  ),
  'x-load-timeout': longest(
    120_000,
    'Source: longest time for the destination to load the devices, the guest stopped.',
  ),
  'x-confirm-timeout': longest(120_000, 'Source: longest time for the destination to start the guest and say so.'),
  'x-recover-timeout': longest(
    60_000,
    'Postcopy recovery: longest wait of the source for each answer of the destination, and of the destination for a source that is connected to go on.',
    { ends: 'offered' },
  ),
  'x-arrival-timeout': longest(
    15_000,
    'Destination: once one connection of the source has come, longest wait for the others (multifd, preempt); and longest time for one to shake hands (TLS) or to say what it is.',
    { ends: 'destination' },
  ),
  'x-lag-timeout': longest(
    120_000,
    'Destination: how long nothing may come on the other channels of the source (multifd, preempt) while the main channel is ahead of them; 0 is no limit.',
    { min: 0, ends: 'destination' },
  ),
  'x-silence-timeout': longest(
    0,
    'Destination: longest silence of the source before the end of the stream; 0 is no limit, as a source may pause on purpose and a lost connection ends the wait by itself.',
    { min: 0, ends: 'destination' },
  ),
  'x-description-timeout': longest(
    10_000,
    'Destination: after this silence behind the end of the stream the description counts as suppressed (suppress-vmdesc).',
    { ends: 'destination' },
  ),
  'x-device-state-timeout': longest(
    60_000,
    'VFIO devices: longest time for a device to change its state or be reset.',
    {
      ends: 'offered',
    },
  ),
  'x-device-data-timeout': longest(
    60_000,
    'VFIO devices: longest time for a device to give or take a piece of its state, or to take its configuration.',
    { ends: 'offered' },
  ),
  'x-device-answer-timeout': longest(20_000, 'VFIO devices: longest time for a device to answer any other question.', {
    ends: 'offered',
  }),
  'x-closing-timeout': longest(
    5_000,
    'Longest time for last words to leave when all is decided, and for the other end to close after them.',
    { ends: 'offered' },
  ),
} as const satisfies Readonly<Record<string, ParameterDeclaration>>;
