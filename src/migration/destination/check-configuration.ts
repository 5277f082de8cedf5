import type { DestinationMachine } from '../../machine/index.ts';
import type { SettingsView } from '../../settings/index.ts';
import { type Configuration, uuidText } from '../../wire/index.ts';
import { mismatch } from '../errors.ts';

/**
 * What QEMU checks too: machine type, uuid and the capabilities that change the stream (savevm.c: configuration_validate_capabilities). A machine
 * that `takesAny` (a checkpoint) has none of its own. Throws MIGRATION_MISMATCH.
 */
export function checkConfiguration(
  configuration: Configuration,
  machine: DestinationMachine,
  settings: SettingsView,
  takesAny: boolean,
): void {
  const own = machine.machineType;
  if (own !== undefined && own !== configuration.machineType) {
    throw mismatch('machine type', own, configuration.machineType);
  }
  if (takesAny) return;
  const theirs = configuration.capabilities ?? [];
  for (const name of ['x-ignore-shared', 'mapped-ram'] as const) {
    const mine = settings.capability(name);
    if (mine !== theirs.includes(name)) {
      throw mismatch(`capability ${name}`, mine ? 'on' : 'off', mine ? 'off' : 'on');
    }
  }
  const { uuid } = machine;
  if (configuration.uuid !== undefined && uuid !== undefined && !configuration.uuid.equals(uuid)) {
    throw mismatch('uuid', uuidText(uuid), uuidText(configuration.uuid));
  }
}
