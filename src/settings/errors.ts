import { FerryError } from '../base/index.ts';

/** What can be wrong with a setting. `name` is QEMU's name of the capability or parameter. */
export type SettingsFault =
  | { readonly code: 'SETTINGS_UNKNOWN'; readonly name: string }
  | { readonly code: 'SETTINGS_UNSUPPORTED'; readonly name: string; readonly reason: string }
  | { readonly code: 'SETTINGS_CONFLICT'; readonly name: string; readonly other: string }
  | { readonly code: 'SETTINGS_BAD_VALUE'; readonly name: string; readonly value: unknown; readonly expected: string }
  | { readonly code: 'SETTINGS_BAD_ASSIGNMENT'; readonly text: string }
  | { readonly code: 'SETTINGS_MIGRATION_RUNNING' };

export type SettingsError = FerryError<SettingsFault>;

export function settingsError(fault: SettingsFault, message: string): SettingsError {
  return new FerryError(fault, message);
}
