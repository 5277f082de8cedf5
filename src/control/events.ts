/** The events of a vmferry process, with QEMU's names and data. */
import type { HostEvent } from '../migration/index.ts';
import { MIGRATION_STATUS } from './migration-info.ts';
import { bool, enumOf, int, type ObjectNode, required, struct } from './schema.ts';

const SHUTDOWN_CAUSE = enumOf('ShutdownCause', [
  'none',
  'host-error',
  'host-qmp-quit',
  'host-signal',
  'guest-shutdown',
  'guest-panic',
]);

export interface EventDeclaration {
  readonly doc: string;
  readonly data?: ObjectNode;
}

export const EVENTS: Readonly<Record<HostEvent['event'], EventDeclaration>> = {
  MIGRATION: {
    doc: 'The migration has come into another state. Only with the capability `events`.',
    data: struct('MIGRATION', { status: required(MIGRATION_STATUS, 'The new state.') }),
  },
  MIGRATION_PASS: {
    doc: 'A round over dirty memory begins. Only with the capability `events`.',
    data: struct('MIGRATION_PASS', { pass: required(int, 'Number of the round, from 1.') }),
  },
  STOP: { doc: 'The machine has been stopped.' },
  RESUME: { doc: 'The machine runs again.' },
  SHUTDOWN: {
    doc: 'The process is about to end.',
    data: struct('SHUTDOWN', {
      guest: required(bool, 'Whether the guest asked for it.'),
      reason: required(SHUTDOWN_CAUSE, 'What caused it.'),
    }),
  },
};
