import type { Arcs } from '../base/index.ts';
import type { MigrationStatus } from './host.ts';

/** Source side. `failed` and `cancelled` end one migration; the next one is a new object. (qemu-wire 11.1; migration/migration.c) */
export const OUTGOING_ARCS: Arcs<MigrationStatus> = {
  none: ['setup'],
  setup: ['active', 'failed', 'cancelling'],
  active: ['pre-switchover', 'device', 'failed', 'cancelling'],
  'pre-switchover': ['device', 'failed', 'cancelling'],
  device: ['completed', 'failed', 'cancelling'],
  completed: [],
  failed: [],
  cancelling: ['cancelled', 'failed'],
  cancelled: [],
};

export const INCOMING_ARCS: Arcs<MigrationStatus> = {
  none: ['setup'],
  setup: ['active', 'failed'],
  active: ['completed', 'failed'],
  'pre-switchover': [],
  device: [],
  completed: [],
  failed: [],
  cancelling: [],
  cancelled: [],
};
