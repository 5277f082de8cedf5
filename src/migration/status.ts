import type { Arcs } from '../base/index.ts';
import type { MigrationStatus } from './host.ts';

/** Source side. `failed` and `cancelled` end one migration; the next one is a new object. (qemu-wire 11.1; migration/migration.c) */
export const OUTGOING_ARCS: Arcs<MigrationStatus> = {
  none: ['setup'],
  setup: ['active', 'failed', 'cancelling'],
  active: ['pre-switchover', 'device', 'failed', 'cancelling'],
  'pre-switchover': ['device', 'failed', 'cancelling'],
  device: ['completed', 'failed', 'cancelling', 'postcopy-device'],
  // The package is out: the guest runs at the destination, or will. It comes back only if the destination says that it never has run.
  'postcopy-device': ['postcopy-active', 'postcopy-paused', 'failed'],
  'postcopy-active': ['completed', 'postcopy-paused', 'failed'],
  'postcopy-paused': ['postcopy-recover-setup', 'failed'],
  'postcopy-recover-setup': ['postcopy-recover', 'postcopy-paused', 'failed'],
  'postcopy-recover': ['postcopy-active', 'postcopy-paused', 'failed'],
  completed: [],
  failed: [],
  cancelling: ['cancelled', 'failed'],
  cancelled: [],
};

export const INCOMING_ARCS: Arcs<MigrationStatus> = {
  none: ['setup'],
  setup: ['active', 'failed'],
  active: ['completed', 'failed', 'postcopy-device'],
  'pre-switchover': [],
  device: [],
  'postcopy-device': ['postcopy-active', 'failed'],
  'postcopy-active': ['completed', 'postcopy-paused', 'failed'],
  'postcopy-paused': ['postcopy-recover', 'failed'],
  'postcopy-recover-setup': [],
  'postcopy-recover': ['postcopy-active', 'postcopy-paused', 'failed'],
  completed: [],
  failed: [],
  cancelling: [],
  cancelled: [],
};
