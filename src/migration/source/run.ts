import type { RunState, SourceMachine } from '../../machine/index.ts';
import type { CompatProfile, SettingsView, TimedWait } from '../../settings/index.ts';
import type { MigrationStatus } from '../host.ts';
import type { Statistics } from '../statistics.ts';
import type { Links } from './links.ts';
import type { StreamWriter } from './stream-writer.ts';
import type { SwitchoverAcks } from './switchover-acks.ts';
import type { SwitchoverCosts } from './switchover-costs.ts';

/** What the steps of one outgoing migration share. The conductor makes it; whatever ends the migration ends every wait of theirs. */
export interface SourceRun {
  readonly machine: SourceMachine;
  /** Those marked live may change while the migration runs. */
  readonly settings: SettingsView;
  /** Dialect of the machine type. */
  readonly profile: CompatProfile;
  readonly statistics: Statistics;
  readonly links: Links;
  readonly stream: StreamWriter;
  /** With switchover-ack. */
  readonly acks: SwitchoverAcks | undefined;
  readonly costs: SwitchoverCosts;
  /** With postcopy-preempt: how many such channels both ends have agreed on. */
  readonly preemptChannels: number;
  readonly signal: AbortSignal;

  /** Throws if the migration has failed or was cancelled. */
  check(): void;
  /** A connection has broken. */
  lost(error: Error): void;
  status(): MigrationStatus;
  move(status: MigrationStatus): void;
  /** Waits at most the declared time; query-migrate shows what for. Throws MIGRATION_DEADLINE. */
  wait<T>(promise: Promise<T>, wait: TimedWait): Promise<T>;
  /** query-migrate shows that this is waited for; undefined: nothing is any more. */
  waitsFor(what: string | undefined): void;
  /** The guest shall run on at the destination before its memory is there. */
  postcopyWanted(): boolean;
  /** A new round over the dirty log has begun. */
  passed(): void;
  /** The guest is about to be stopped; until the commit point any failure gives this state back. Undefined: it runs on. */
  stopping(from: RunState | undefined): void;
  stopped(): void;
  /** Waits in pre-switchover for migrate-continue. */
  pause(): Promise<void>;
  /** The commit point: from now on the guest may run at the destination. */
  commit(): void;
}
