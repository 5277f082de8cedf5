/** Every command that each vmferry process has. A machine may add its own (see server.ts). */
import type { Command } from '../command.ts';
import { cont, queryName, queryStatus, quit, stop } from './machine.ts';
import { migrate } from './migrate.ts';
import { migrateSetCapabilities, queryMigrateCapabilities } from './migrate-capabilities.ts';
import { migrateIncoming } from './migrate-incoming.ts';
import { migrateSetParameters, queryMigrateParameters } from './migrate-parameters.ts';
import {
  migrateCancel,
  migrateContinue,
  migratePause,
  migrateRecover,
  migrateStartPostcopy,
} from './migrate-steering.ts';
import { objectAdd, objectDel } from './objects.ts';
import { qmpCapabilities, queryCommands, queryQmpSchema, queryVersion } from './protocol.ts';
import { queryMigrate } from './query-migrate.ts';
import { queryMigrationThreads } from './query-migrationthreads.ts';

export const COMMANDS: readonly Command[] = [
  qmpCapabilities,
  queryVersion,
  queryCommands,
  queryQmpSchema,
  queryName,
  queryStatus,
  stop,
  cont,
  quit,
  migrateSetCapabilities,
  queryMigrateCapabilities,
  migrateSetParameters,
  queryMigrateParameters,
  migrate,
  migrateIncoming,
  migrateCancel,
  migrateContinue,
  migrateStartPostcopy,
  migratePause,
  migrateRecover,
  queryMigrate,
  queryMigrationThreads,
  objectAdd,
  objectDel,
];
