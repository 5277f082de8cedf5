/** What two ends have come to, and what becomes of it. */
import { type SettingsView, withChanges } from '../../settings/index.ts';
import { changesOf, type EndFacts, type Settlement, settingText } from '../fit/index.ts';
import type { HandshakeInfo } from '../host.ts';

/** How a handshake has ended that has ended well. */
export interface Agreement {
  /** Facts of the other end. */
  readonly peer: EndFacts;
  /** Settings in which the ends differed, as both use them now. */
  readonly settled: readonly Settlement[];
  /** What need not stop the migration, for people. */
  readonly warnings: readonly string[];
}

/** The settings of this end, with what both use. */
export function agreedSettings(settings: SettingsView, { settled }: Agreement): SettingsView {
  return withChanges(settings, changesOf(settled));
}

/** As query-migrate shows it. */
export function agreedInfo({ settled, warnings }: Agreement): HandshakeInfo {
  return {
    settled: settled.map(({ name, value, source, destination }) => {
      return { name, value: settingText(value), source: settingText(source), destination: settingText(destination) };
    }),
    warnings,
  };
}
