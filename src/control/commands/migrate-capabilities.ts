import { CAPABILITY_NAMES } from '../../settings/index.ts';
import { defineCommand } from '../command.ts';
import { arrayOf, bool, empty, enumOf, required, struct } from '../schema.ts';

const STATUS = struct('MigrationCapabilityStatus', {
  capability: required(enumOf('MigrationCapability', CAPABILITY_NAMES), 'Name of the capability.'),
  state: required(bool, 'Whether it is on.'),
});

export const migrateSetCapabilities = defineCommand({
  name: 'migrate-set-capabilities',
  doc: 'Switches capabilities on and off, all of the list or none. Not while a migration runs.',
  arguments: struct('migrate-set-capabilities', {
    capabilities: required(
      arrayOf(STATUS),
      'The changes. Every capability QEMU knows may be named, to be switched off at least.',
    ),
  }),
  returns: empty,
  run: ({ host }, { capabilities }) => {
    host.settings.setCapabilities(capabilities);
    return {};
  },
});

export const queryMigrateCapabilities = defineCommand({
  name: 'query-migrate-capabilities',
  doc: 'The capabilities that can be switched on here, and their state.',
  arguments: empty,
  returns: arrayOf(STATUS),
  run: ({ host }) => host.settings.capabilities(),
});
