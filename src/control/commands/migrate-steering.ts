/** Commands that act on the migration under way. */
import { defineCommand } from '../command.ts';
import { MIGRATION_STATUS } from '../migration-info.ts';
import { empty, required, str, struct } from '../schema.ts';

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

export const migrateStartPostcopy = defineCommand({
  name: 'migrate-start-postcopy',
  doc: 'Lets the guest run on at the destination before all of its memory is there. Wants the capability `postcopy-ram`, on both sides.',
  arguments: empty,
  returns: empty,
  run: async ({ host }) => {
    await host.migrateStartPostcopy();
    return {};
  },
});

export const migrateRecover = defineCommand({
  name: 'migrate-recover',
  doc: 'Destination of a postcopy in `postcopy-paused`: waits for its source at another address.',
  arguments: struct('migrate-recover', { uri: required(str, 'Where to wait, as migrate-incoming takes it.') }),
  returns: empty,
  run: async ({ host }, { uri }) => {
    await host.migrateRecover(uri);
    return {};
  },
});

export const migratePause = defineCommand({
  name: 'migrate-pause',
  doc: 'Gives up the connection of a postcopy that runs, which then waits in `postcopy-paused` for another one.',
  arguments: empty,
  returns: empty,
  run: async ({ host }) => {
    await host.migratePause();
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
