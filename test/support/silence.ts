/** What tests of silent peers share: one deadline that is short, all others far away, so that what ends a wait is the right one. */
import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';
import { explain, FerryError } from '../../src/base/index.ts';
import type { MigrationInfo } from '../../src/migration/index.ts';
import { type CapabilityName, type Settings, type TimedWait, WAITS } from '../../src/settings/index.ts';
import { testSettings } from './move.ts';

export const SHORT_MS = 150;
const FAR_MS = 600_000;

/** All deadlines far away, but that of `wait` if it is given. */
export function settingsFor(wait: TimedWait | undefined, ...capabilities: readonly CapabilityName[]): Settings {
  return testSettings((settings) => {
    settings.setCapabilities(capabilities.map((capability) => ({ capability, state: true })));
    farDeadlines(settings);
    if (wait !== undefined) shorten(settings, wait);
  });
}

/** All deadlines far away. */
export function farDeadlines(settings: Settings): void {
  const deadlines = Object.values(WAITS).flatMap((one) => ('deadline' in one ? [one.deadline] : []));
  settings.setParameters(Object.fromEntries(deadlines.map((name) => [name, FAR_MS])));
}

export function shorten(settings: Settings, wait: TimedWait, ms = SHORT_MS): void {
  settings.setParameters({ [WAITS[wait].deadline]: ms });
}

/** It is the deadline of `wait` that has ended it, wherever in the chain of causes. */
export function assertOverdue(error: unknown, wait: TimedWait, ms = SHORT_MS): void {
  const late = overdue(error);
  assert.deepEqual(late && [late.waitingFor, late.deadlineMs], [WAITS[wait].what, ms], explain(error));
}

function overdue(error: unknown): { waitingFor: string; deadlineMs: number } | undefined {
  for (let at = error; at instanceof Error; at = at.cause) {
    if (at instanceof FerryError && at.code === 'MIGRATION_DEADLINE') return at.fault as never;
  }
  return undefined;
}

/** Everything that query-migrate says is waited for while the test lasts. */
export function reasonsShown(t: TestContext, migration: { info(): MigrationInfo }): ReadonlySet<string | undefined> {
  const reasons = new Set<string | undefined>();
  const looking = setInterval(() => reasons.add(migration.info()['x-waiting-for']), 5);
  t.after(() => clearInterval(looking));
  return reasons;
}
