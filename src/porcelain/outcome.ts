import type { HandshakeInfo, MigrationRamStats } from '../migration/index.ts';

/** `ram` of query-migrate; which members are there depends on the peer and its version. */
export type RamStatistics = Partial<MigrationRamStats>;

/** One look at a migration under way. Times ms; `ram` as query-migrate has it. */
export interface Progress {
  /** MigrationStatus; a QEMU peer may know more of them than vmferry. */
  readonly status: string;
  readonly totalTimeMs: number;
  readonly expectedDowntimeMs?: number;
  readonly throttlePercentage?: number;
  readonly ram?: RamStatistics;
  /** What the migration waits for, if it does (x-waiting-for). */
  readonly waitingFor?: string;
  /** What two vmferry ends have come to (x-handshake). */
  readonly handshake?: HandshakeInfo;
}

/** What is known of one side after the end: its RunState, or that nobody answers there. Asked, never assumed. */
export type GuestState = string;
export const GONE = 'gone';
export const UNKNOWN = 'unknown';

/** How a migration ended, and where the guest is. */
export interface Outcome {
  readonly status: 'completed' | 'failed' | 'cancelled';
  readonly totalTimeMs?: number;
  readonly downtimeMs?: number;
  readonly setupTimeMs?: number;
  readonly ram?: RamStatistics;
  readonly handshake?: HandshakeInfo;
  /** Why it did not complete. */
  readonly error?: Error;
  readonly source?: GuestState;
  readonly destination?: GuestState;
  /** For people: where the guest is now and what was done about it, or how to go on. */
  readonly message: string;
}

/** How the drivers of this room tell how far they are. */
export type ProgressListener = (progress: Progress) => void;

/** The members of query-migrate, QEMU's or ours, that a look at a migration is made of. */
export interface MigrationFigures {
  readonly status?: string;
  readonly ram?: RamStatistics;
  readonly 'total-time'?: number;
  readonly 'expected-downtime'?: number;
  readonly downtime?: number;
  readonly 'setup-time'?: number;
  readonly 'cpu-throttle-percentage'?: number;
  readonly 'error-desc'?: string;
  readonly 'x-waiting-for'?: string;
  readonly 'x-handshake'?: HandshakeInfo;
}

export function progressOf(info: MigrationFigures): Progress {
  return {
    status: info.status ?? 'none',
    totalTimeMs: info['total-time'] ?? 0,
    ...defined('expectedDowntimeMs', info['expected-downtime']),
    ...defined('throttlePercentage', info['cpu-throttle-percentage']),
    ...defined('ram', info.ram),
    ...defined('waitingFor', info['x-waiting-for']),
    ...defined('handshake', info['x-handshake']),
  };
}

export function figuresOf(
  info: MigrationFigures,
): Pick<Outcome, 'totalTimeMs' | 'downtimeMs' | 'setupTimeMs' | 'ram' | 'handshake'> {
  return {
    ...defined('totalTimeMs', info['total-time']),
    ...defined('downtimeMs', info.downtime),
    ...defined('setupTimeMs', info['setup-time']),
    ...defined('ram', info.ram),
    ...defined('handshake', info['x-handshake']),
  };
}

/** `{[name]: value}`, or nothing: an absent member is absent, not undefined. */
function defined<N extends string, V>(name: N, value: V | undefined): { [K in N]?: V } {
  return value === undefined ? {} : ({ [name]: value } as { [K in N]?: V });
}
