/** Commands that act on the migration under way. */
import { defineCommand } from '../command.ts';
import { MIGRATION_STATUS } from '../migration-info.ts';
import { empty, required, struct } from '../schema.ts';

export const migrateCancel = defineCommand({
  name: 'migrate_cancel',
  doc: 'Gives up the outgoing migration; the guest goes on here. Without one, nothing happens.',
  arguments: empty,
  returns: empty,
  run: async ({ host }) => {
    await host.migrateCancel();
    return {};
  },
});

export const migrateContinue = defineCommand({
  name: 'migrate-continue',
  doc: 'Lets a migration go on that waits in `pre-switchover`.',
  arguments: struct('migrate-continue', {
    state: required(MIGRATION_STATUS, 'The state it waits in.'),
  }),
  returns: empty,
  run: async ({ host }, { state }) => {
    await host.migrateContinue(state);
    return {};
  },
});
