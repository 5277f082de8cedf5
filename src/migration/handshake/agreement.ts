/** What two ends have come to, and what becomes of it. */
import type { SectionName } from '../../machine/index.ts';
import { type SettingsView, withChanges } from '../../settings/index.ts';
import { changesOf, type EndFacts, preparedDevices, type Settlement, sectionKey, settingText } from '../fit/index.ts';
import type { HandshakeInfo } from '../host.ts';

/** How a handshake has ended that has ended well. */
export interface Agreement {
  /** Facts of the other end. */
  readonly peer: EndFacts;
  /** Settings in which the ends differed, as both use them now. */
  readonly settled: readonly Settlement[];
  /** What need not stop the migration, for people. */
  readonly warnings: readonly string[];
  /** Whether both ends have initial data of a device, so that switchover-ack waits for it. */
  readonly prepares: (device: SectionName) => boolean;
}

/** What `source` and `destination` have come to; `peer` is one of them. */
export function agreementOf(
  ends: { readonly source: EndFacts; readonly destination: EndFacts; readonly peer: EndFacts },
  settled: readonly Settlement[],
  warnings: readonly string[],
): Agreement {
  const prepared = preparedDevices(ends.source, ends.destination);
  const prepares = ({ idstr: section, instance }: SectionName) =>
    prepared?.has(sectionKey({ section, instance })) !== false;
  return { peer: ends.peer, settled, warnings, prepares };
}

/** The settings of this end, with what both use. */
export function agreedSettings(settings: SettingsView, { settled }: Agreement): SettingsView {
  return withChanges(settings, changesOf(settled));
}

/** Channels for requested pages: as many as both ends use; one if nobody has told that there may be more. `settings`: with what both use. */
export function preemptChannels(settings: SettingsView, agreement: Agreement | undefined): number {
  const isTold = agreement?.peer.parameters?.['x-postcopy-preempt-channels'] !== undefined;
  return isTold ? settings.parameter('x-postcopy-preempt-channels') : 1;
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
