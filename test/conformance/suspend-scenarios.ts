/**
 * A guest that sleeps (ACPI S3) sleeps where it arrives, and wakes there with all of its memory. From QEMU 9.0 on: 7.2 wakes the guest to send it, and
 * lets the clock of one that arrives asleep stand, so that it never comes to (seen from 7.2 and from 10.0 into 7.2).
 */
import type { Scenario } from './model.ts';
import { INTO_POSTCOPY, POSTCOPY } from './postcopy-scenarios.ts';

const ASLEEP = { suspended: true, since: '9.0' } as const satisfies Partial<Scenario>;

export const SUSPEND_SCENARIOS: readonly Scenario[] = [
  {
    ...ASLEEP,
    id: 'unix/suspend/live',
    title: 'a guest that sleeps arrives asleep, and wakes',
    qemu: '/migration/precopy/unix/suspend/live',
    chipsets: ['pc', 'q35'],
    roles: ['reference', 'migrate', 'destination', 'source', 'save-restore'],
    transport: 'unix',
    ends: 'completed',
    smoke: ['migrate', 'save-restore'],
  },
  {
    ...ASLEEP,
    id: 'unix/suspend/stopped',
    title: 'stopped in its sleep it arrives stopped, sleeps on when it is let go on, and wakes',
    qemu: '/migration/precopy/unix/suspend/notlive',
    roles: ['reference', 'migrate', 'destination', 'source', 'save-restore'],
    transport: 'unix',
    stopped: true,
    ends: 'completed',
    smoke: [],
  },
  {
    ...ASLEEP,
    id: 'unix/suspend/cancel',
    title: 'cancelled before the switchover it sleeps on where it was; the second try moves it',
    roles: ['reference', 'migrate', 'destination'],
    transport: 'unix',
    capabilities: ['pause-before-switchover'],
    steps: [{ wait: 'pre-switchover' }, { act: 'cancel' }],
    ends: 'cancelled',
    smoke: [],
  },
  {
    ...ASLEEP,
    ...POSTCOPY,
    id: 'postcopy/suspend',
    title: 'by postcopy, woken when all of its memory is there',
    qemu: '/migration/postcopy/suspend',
    chipsets: ['pc', 'q35'],
    roles: ['reference', 'migrate', 'destination', 'source'],
    smoke: ['migrate'],
  },
  {
    ...ASLEEP,
    ...POSTCOPY,
    id: 'postcopy/suspend/woken',
    title: 'by postcopy, woken while its memory is on its way',
    roles: ['reference', 'source'],
    steps: [...INTO_POSTCOPY, { act: 'wake' }, ...POSTCOPY.steps.slice(INTO_POSTCOPY.length)],
    smoke: ['source'],
  },
];
