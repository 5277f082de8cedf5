/** Scenarios of capability postcopy-ram. */
import assert from 'node:assert/strict';
import type { QmpMigrationInfo } from '../../src/qemu/index.ts';
import type { Role, Scenario, Step } from './model.ts';

/** Roles in which the leg that the scenario is about can be a postcopy that is steered from here. */
const POSTCOPY_ROLES: readonly Role[] = ['reference', 'destination', 'source'];

/** Slow enough that the guest's 64 MiB are still on their way when postcopy begins, and after it. */
const SLOWLY = { 'max-bandwidth': 40_000_000, 'downtime-limit': 1, 'max-postcopy-bandwidth': 4_000_000 };
export const INTO_POSTCOPY: readonly Step[] = [
  { wait: 'active' },
  { act: 'start-postcopy' },
  { wait: 'postcopy-active' },
];
const AT_FULL_SPEED: Step = { set: { 'max-postcopy-bandwidth': 0 } };
const RECOVER: readonly Step[] = [{ act: 'recover' }, { wait: 'postcopy-active' }];
const RECOVER_FAST: readonly Step[] = [...RECOVER, AT_FULL_SPEED];
const PAUSE_AND_RECOVER: readonly Step[] = [{ act: 'pause' }, ...RECOVER];

function sentAfterwards({ ram }: QmpMigrationInfo): void {
  assert((ram?.['postcopy-bytes'] ?? 0) > 0, 'nothing was sent after the guest had been handed over');
}

export const POSTCOPY = {
  roles: POSTCOPY_ROLES,
  transport: 'tcp',
  capabilities: ['postcopy-ram'],
  parameters: SLOWLY,
  steps: [...INTO_POSTCOPY, AT_FULL_SPEED],
  ends: 'completed',
  proof: sentAfterwards,
} as const satisfies Partial<Scenario>;

const PREEMPT = { ...POSTCOPY, capabilities: ['postcopy-ram', 'postcopy-preempt'] } as const;
const RECOVERED: readonly Step[] = [...INTO_POSTCOPY, ...PAUSE_AND_RECOVER, AT_FULL_SPEED];

/** What every test run plays: both ways of urgent pages, a recovery that fails first, and one of those with multifd. */
const SMOKE: readonly string[] = [
  'postcopy/restore',
  'postcopy/at-once',
  'postcopy/preempt',
  'postcopy/preempt/recovery',
  'postcopy/recovery/double-failures/handshake',
  'multifd+postcopy',
  'multifd+postcopy/preempt',
];

const SCENARIOS: readonly Scenario[] = [
  {
    ...POSTCOPY,
    id: 'postcopy',
    title: 'a part of memory before the guest runs at the destination, the rest after',
    roles: [...POSTCOPY_ROLES, 'migrate'],
    qemu: '/migration/postcopy/plain',
  },
  {
    ...POSTCOPY,
    id: 'postcopy/unix',
    title: 'the same over a unix socket',
    transport: 'unix',
  },
  {
    ...POSTCOPY,
    id: 'postcopy/xbzrle',
    title: 'pages sent again travel as differences until the guest runs at the destination, and whole after that',
    roles: ['reference', 'destination'],
    capabilities: [...POSTCOPY.capabilities, 'xbzrle'],
    // So slow, and a guest so busy, that it does not arrive by precopy even where all pages travel as differences.
    restless: true,
    parameters: { ...SLOWLY, 'max-bandwidth': 5_000_000, 'xbzrle-cache-size': 128 * 1024 * 1024 },
    steps: [{ waitDifferences: true }, { act: 'start-postcopy' }, { wait: 'postcopy-active' }, AT_FULL_SPEED],
    proof(info) {
      sentAfterwards(info);
      assert((info['xbzrle-cache']?.pages ?? 0) > 0, 'no page travelled as a difference');
    },
  },
  {
    id: 'postcopy/restore',
    title: 'a checkpoint is restored, and the guest runs before any of its memory is there',
    roles: ['save-restore'],
    transport: 'unix',
    atOnce: true,
    ends: 'completed',
  },
  {
    id: 'postcopy/restore/mapped-ram',
    title: 'the same from a file that QEMU has written',
    roles: ['destination'],
    transport: 'file',
    capabilities: ['mapped-ram'],
    atOnce: true,
    ends: 'completed',
    since: '9.0',
  },
  {
    ...POSTCOPY,
    id: 'postcopy/at-once',
    title: 'the guest runs at the destination before any of its memory is there; as fast as it goes',
    roles: ['source'],
    parameters: {},
    steps: [],
    atOnce: true,
  },
  {
    ...PREEMPT,
    id: 'postcopy/preempt',
    title: 'requested pages on a channel of their own',
    roles: [...POSTCOPY_ROLES, 'migrate'],
    qemu: '/migration/postcopy/preempt/plain',
  },
  {
    ...PREEMPT,
    id: 'postcopy/preempt/at-once',
    title: 'requested pages on a channel of their own, none before the guest runs; unix sockets',
    roles: ['source'],
    transport: 'unix',
    parameters: {},
    steps: [],
    atOnce: true,
  },
  {
    ...POSTCOPY,
    id: 'postcopy/recovery',
    title: 'the connection is given up, another one made at a new address',
    qemu: '/migration/postcopy/recovery/plain',
    steps: RECOVERED,
  },
  {
    ...PREEMPT,
    id: 'postcopy/preempt/recovery',
    title: 'the same with a channel for requested pages, which is made anew as well',
    qemu: '/migration/postcopy/preempt/recovery/plain',
    steps: RECOVERED,
  },
  {
    ...PREEMPT,
    id: 'postcopy/preempt/recovery/thrice',
    title: 'three times',
    roles: ['source'],
    steps: [...INTO_POSTCOPY, ...PAUSE_AND_RECOVER, ...PAUSE_AND_RECOVER, ...PAUSE_AND_RECOVER, AT_FULL_SPEED],
  },
  {
    ...POSTCOPY,
    id: 'postcopy/recovery/double-failures/reconnect',
    title: 'the first recovery finds nobody, the second one goes through',
    qemu: '/migration/postcopy/recovery/double-failures/reconnect',
    steps: [...INTO_POSTCOPY, { act: 'pause' }, { act: 'recover-in-vain', by: 'reconnect' }, ...RECOVER_FAST],
  },
  {
    ...POSTCOPY,
    id: 'postcopy/recovery/double-failures/handshake',
    title: 'in the first recovery both sides meet strangers that say nothing and hang up, the second one goes through',
    qemu: '/migration/postcopy/recovery/double-failures/handshake',
    // 7.2 dies of it (SIGSEGV), whoever is the source.
    since: '9.0',
    steps: [...INTO_POSTCOPY, { act: 'pause' }, { act: 'recover-in-vain', by: 'handshake' }, ...RECOVER_FAST],
  },
  {
    ...POSTCOPY,
    id: 'multifd+postcopy',
    title: 'over four channels until the guest runs at the destination',
    qemu: '/migration/multifd+postcopy/plain',
    capabilities: [...POSTCOPY.capabilities, 'multifd'],
    bothParameters: { 'multifd-channels': 4 },
    since: '10.1',
  },
  {
    ...PREEMPT,
    id: 'multifd+postcopy/preempt',
    title: 'the same, then with a channel for requested pages',
    qemu: '/migration/multifd+postcopy/preempt/plain',
    capabilities: [...PREEMPT.capabilities, 'multifd'],
    bothParameters: { 'multifd-channels': 4 },
    since: '10.1',
  },
];

export const POSTCOPY_SCENARIOS: readonly Scenario[] = SCENARIOS.map((scenario) => ({
  ...scenario,
  smoke: SMOKE.includes(scenario.id) ? ['source', 'save-restore'] : [],
}));
