import { defineCommand } from '../command.ts';
import { MIGRATION_INFO } from '../migration-info.ts';
import { empty } from '../schema.ts';

export const queryMigrate = defineCommand({
  name: 'query-migrate',
  doc: 'State and figures of the migration under way, or of the last one. Empty if there was none.',
  arguments: empty,
  returns: MIGRATION_INFO,
  run: ({ host }) => host.queryMigrate(),
});
