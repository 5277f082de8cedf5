/** Scenarios of capability multifd. */
import assert from 'node:assert/strict';
import type { QmpMigrationInfo } from '../../src/qemu/index.ts';
import type { Role, Scenario, Step } from './model.ts';

const ALL: readonly Role[] = ['reference', 'migrate', 'destination', 'source', 'save-restore'];
/** Roles in which a QEMU is the source of the leg that the scenario is about. */
const FROM_QEMU: readonly Role[] = ['reference', 'migrate', 'destination'];
const WITH_VMFERRY_LEG: readonly Role[] = ['reference', 'destination', 'source'];

/** As in scenarios.ts, but for what all channels carry together. */
const NEVER_CONVERGES = { 'max-bandwidth': 200_000_000, 'downtime-limit': 1 };
const THREE_ROUNDS_THEN_CONVERGE: readonly Step[] = [{ waitRounds: 4 }, { act: 'converge' }];

/** The guest works on 64 MiB that are never zero: most of it must have gone over channels. */
const MIB = 1024 * 1024;
function overChannels({ ram }: QmpMigrationInfo): void {
  const bytes = ram?.['multifd-bytes'] ?? 0;
  assert(bytes > 32 * MIB, `${bytes} bytes over multifd channels`);
}

const MULTIFD = { capabilities: ['multifd'], ends: 'completed' } as const;

/** What every test run plays: both disciplines, both directions, both methods, a cancel and a refusal. */
const SMOKE: Readonly<Record<string, readonly Role[]>> = {
  'multifd/tcp/live': ['destination'],
  'multifd/tcp': ['source', 'save-restore'],
  'multifd/tcp/zlib/live': ['destination'],
  'multifd/tcp/zstd': ['source'],
  'multifd/tcp/cancel': ['destination'],
  'multifd/mismatch/compression': ['source'],
};

const channels = (count: number) => ({ 'multifd-channels': count });

const SCENARIOS: readonly Scenario[] = [
  {
    ...MULTIFD,
    id: 'multifd/tcp/live',
    title: 'over four channels, the guest dirtying memory faster than they carry for at least three rounds',
    qemu: '/migration/multifd/tcp/uri/plain/none',
    roles: FROM_QEMU,
    transport: 'tcp',
    bothParameters: channels(4),
    parameters: NEVER_CONVERGES,
    steps: THREE_ROUNDS_THEN_CONVERGE,
    machines: ['8.0', '8.2', '9.0'],
    proof: overChannels,
  },
  {
    ...MULTIFD,
    id: 'multifd/tcp',
    title: 'over four channels',
    roles: ALL,
    transport: 'tcp',
    bothParameters: channels(4),
    machines: ['8.0', '8.2', '9.0'],
    proof: overChannels,
  },
  {
    ...MULTIFD,
    id: 'multifd/unix/1',
    title: 'over one channel, unix sockets',
    roles: ALL,
    transport: 'unix',
    bothParameters: channels(1),
    proof: overChannels,
  },
  {
    ...MULTIFD,
    id: 'multifd/unix/16/live',
    title: 'over sixteen channels, unix sockets, for at least three rounds',
    roles: FROM_QEMU,
    transport: 'unix',
    bothParameters: channels(16),
    parameters: NEVER_CONVERGES,
    steps: THREE_ROUNDS_THEN_CONVERGE,
    proof: overChannels,
  },
  {
    ...MULTIFD,
    id: 'multifd/tcp/16',
    title: 'over sixteen channels',
    roles: WITH_VMFERRY_LEG,
    transport: 'tcp',
    bothParameters: channels(16),
    proof: overChannels,
  },
  ...(['zlib', 'zstd'] as const).map(
    (method): Scenario => ({
      capabilities: ['multifd'],
      ends: 'completed',
      id: `multifd/tcp/${method}`,
      title: `over four channels, packets compressed with ${method}`,
      qemu: `/migration/multifd/tcp/plain/${method}`,
      roles: WITH_VMFERRY_LEG,
      transport: 'tcp',
      bothParameters: { ...channels(4), 'multifd-compression': method },
      parameters: { [`multifd-${method}-level`]: 2 },
    }),
  ),
  ...(['zlib', 'zstd'] as const).flatMap((method): Scenario[] => {
    const live = {
      capabilities: ['multifd'],
      ends: 'completed',
      title: `packets compressed with ${method}, for at least three rounds: one stream through all of them`,
      roles: FROM_QEMU,
      transport: 'tcp',
      bothParameters: { ...channels(2), 'multifd-compression': method },
      steps: THREE_ROUNDS_THEN_CONVERGE,
    } as const;
    // A round of the guest's pages is less than a megabyte compressed; the limit of QEMU 7.2 counts them uncompressed, though.
    return [
      {
        ...live,
        id: `multifd/tcp/${method}/live`,
        parameters: { ...NEVER_CONVERGES, 'max-bandwidth': 500_000 },
        since: '9.0',
      },
      {
        ...live,
        id: `multifd/tcp/${method}/live/7.2`,
        parameters: { ...NEVER_CONVERGES, 'max-bandwidth': 20_000_000 },
        until: '8.0',
      },
    ];
  }),
  ...(['legacy', 'none'] as const).map(
    (method): Scenario => ({
      capabilities: ['multifd'],
      ends: 'completed',
      id: `multifd/tcp/zero-page/${method}`,
      title:
        method === 'none'
          ? 'zero pages are sent as all others'
          : 'zero pages are found by the main thread and told on the main channel',
      qemu: `/migration/multifd/tcp/plain/zero-page/${method}`,
      roles: WITH_VMFERRY_LEG,
      transport: 'tcp',
      bothParameters: channels(4),
      parameters: { 'zero-page-detection': method },
      since: '9.0',
      proof: overChannels,
    }),
  ),
  {
    capabilities: ['multifd'],
    id: 'multifd/tcp/cancel',
    title: 'sixteen channels, cancelled in the third round; then all over again, to another address',
    qemu: '/migration/multifd/tcp/plain/cancel',
    roles: FROM_QEMU,
    transport: 'tcp',
    bothParameters: channels(16),
    parameters: NEVER_CONVERGES,
    steps: [{ waitRounds: 3 }, { act: 'cancel' }],
    again: true,
    ends: 'cancelled',
  },
  {
    capabilities: ['multifd'],
    id: 'multifd/tcp/cancel/source',
    title: 'sending a checkpoint over sixteen channels is broken off',
    roles: ['source'],
    transport: 'tcp',
    bothParameters: channels(16),
    parameters: { 'max-bandwidth': 10_000_000 },
    steps: [{ wait: 'active' }, { act: 'cancel' }],
    ends: 'cancelled',
  },
  {
    capabilities: ['multifd'],
    id: 'multifd/destination-dies',
    title: 'four channels, the destination dies in the third round',
    roles: FROM_QEMU,
    transport: 'tcp',
    bothParameters: channels(4),
    parameters: NEVER_CONVERGES,
    steps: [{ waitRounds: 3 }, { act: 'kill-destination' }],
    again: true,
    ends: 'failed',
  },
  {
    capabilities: ['multifd', 'return-path'],
    id: 'multifd/mismatch/compression',
    title: 'the destination expects another compression: refused, the source runs on',
    roles: WITH_VMFERRY_LEG,
    transport: 'tcp',
    bothParameters: channels(2),
    parameters: { 'multifd-compression': 'zstd' },
    destinationParameters: { 'multifd-compression': 'none' },
    ends: 'failed',
  },
  {
    capabilities: ['multifd', 'return-path'],
    id: 'multifd/mismatch/too-many',
    title:
      'more channels come than the destination expects: two QEMUs may wait for ever, vmferry refuses and the source runs on',
    roles: ['destination', 'source'],
    transport: 'tcp',
    parameters: channels(4),
    destinationParameters: channels(2),
    ends: 'failed',
  },
  {
    capabilities: ['multifd', 'return-path'],
    id: 'multifd/mismatch/too-few',
    title: 'fewer channels come than the destination expects: two QEMUs wait for ever, vmferry does not',
    roles: ['destination', 'source'],
    transport: 'tcp',
    parameters: channels(2),
    destinationParameters: channels(4),
    ends: 'failed',
  },
  ...([false, true] as const).map(
    (live): Scenario => ({
      capabilities: ['mapped-ram', 'multifd'],
      ends: 'completed',
      id: `multifd/file/mapped-ram${live ? '/live' : ''}`,
      title: `a mapped-ram file that QEMU writes or loads by four channels, the guest ${live ? 'running' : 'stopped'}`,
      qemu: `/migration/multifd/file/mapped-ram${live ? '/live' : ''}`,
      roles: live ? ['reference', 'destination'] : WITH_VMFERRY_LEG,
      transport: 'file',
      bothParameters: channels(4),
      ...(live ? { parameters: NEVER_CONVERGES, steps: THREE_ROUNDS_THEN_CONVERGE } : { stopped: true }),
      since: '9.0',
    }),
  ),
];

export const MULTIFD_SCENARIOS: readonly Scenario[] = SCENARIOS.map((scenario) => ({
  ...scenario,
  smoke: SMOKE[scenario.id] ?? [],
}));
