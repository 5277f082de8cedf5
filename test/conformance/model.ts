/**
 * The conformance matrix as data: scenario x role of vmferry x pair of QEMU versions x machine type x guest. `scenarios.ts` lists what may
 * happen, `matrix.ts` which of it is run where, `cell.ts` runs one cell.
 */
import type { QmpMigrationInfo, QmpMigrationStatus } from '../../src/qemu/index.ts';
import type { TlsFolders } from '../support/tls-folders.ts';

/** Who does what. A and B are QEMU processes; the scenario is played on the leg named, the other leg (if any) is plain. */
export const ROLES = {
  reference: 'A -> B, both QEMU, without vmferry: proves the runner and shows what QEMU itself does',
  migrate: 'A -> B, driven by `vmferry migrate`',
  destination: 'A -> `vmferry receive` (checkpoint), then `vmferry restore` into B',
  source: '`vmferry save` from A, then `vmferry send` (checkpoint) -> B',
  'save-restore': '`vmferry save` from A, `vmferry restore` into B',
} as const;
export type Role = keyof typeof ROLES;

export type Transport = 'tcp' | 'tcp6' | 'unix' | 'exec' | 'fd' | 'file' | 'file-offset';

/** What the runner does to the source while a migration is under way, or waits for. */
export type Step =
  | { readonly wait: QmpMigrationStatus }
  /** Rounds over RAM that have begun, the guest still running. */
  | { readonly waitRounds: number }
  | { readonly waitThrottle: true }
  /** Pages travel as differences (xbzrle). */
  | { readonly waitDifferences: true }
  /** Lets the migration converge: no limit of bandwidth, 30 s of downtime allowed. */
  | { readonly act: 'converge' }
  | { readonly act: 'continue' }
  | { readonly act: 'cancel' }
  | { readonly act: 'start-postcopy' }
  /** The connection of a postcopy is given up; both sides wait for another one. */
  | { readonly act: 'pause' }
  /** Another connection for a paused postcopy, at a new address. */
  | { readonly act: 'recover' }
  /** One that fails: nobody is where the source is sent to, or both sides meet somebody who says nothing and hangs up. */
  | { readonly act: 'recover-in-vain'; readonly by: 'reconnect' | 'handshake' }
  /** The guest, which sleeps, is woken at the destination. */
  | { readonly act: 'wake' }
  /** Parameters of the source from now on. */
  | { readonly set: Parameters }
  /** SIGSTOP and SIGKILL. */
  | { readonly act: 'freeze-destination' }
  | { readonly act: 'kill-destination' };

export type Parameters = Readonly<Record<string, number | string | boolean>>;

/** What object-add is given on each side. */
export type TlsSetup = (folders: TlsFolders) => {
  readonly source: readonly ObjectArguments[];
  readonly destination: readonly ObjectArguments[];
};
export type ObjectArguments = { readonly 'qom-type': string; readonly id: string } & Readonly<
  Record<string, string | boolean>
>;

export interface Scenario {
  readonly id: string;
  readonly title: string;
  /** The test of QEMU's own suite (tests/qtest/migration) that this one is like. */
  readonly qemu?: string;
  readonly roles: readonly Role[];
  readonly transport: Transport;
  /** Set on both sides. */
  readonly capabilities?: readonly string[];
  readonly bothParameters?: Parameters;
  /** Set on the source. */
  readonly parameters?: Parameters;
  /** Set on the destination. */
  readonly destinationParameters?: Parameters;
  readonly tls?: TlsSetup;
  /** The guest is stopped before it is moved, and is still stopped after. */
  readonly stopped?: boolean;
  /** The guest sleeps (ACPI S3) before it is moved, and sleeps where it ends, unless a step has woken it. */
  readonly suspended?: boolean;
  /** The boot program does not rest between its passes: what is dirtied never waits for a timer. */
  readonly restless?: boolean;
  /** -uuid of each side. */
  readonly uuid?: { readonly a?: string; readonly b?: string };
  /** RAM is a file that both sides map. */
  readonly sharedRam?: boolean;
  /** Where the source sends to is not there. */
  readonly nobodyThere?: boolean;
  readonly steps?: readonly Step[];
  /** A checkpoint is sent, or restored, by postcopy from its first page on. */
  readonly atOnce?: true;
  /** After one that does not complete, the second try has the same settings and not those of a plain move. */
  readonly again?: true;
  /**
   * `completed`: the guest runs in B and in B only. `failed`, `cancelled`: it runs on in A, and then it can be moved all the same.
   * With role source the checkpoint takes A's place.
   */
  readonly ends: 'completed' | 'failed' | 'cancelled';
  /** Looks at the last query-migrate of a QEMU source; throws if it does not show what the scenario is about. */
  readonly proof?: (info: QmpMigrationInfo) => void;
  /** Roles that every test run plays, each on one version; default: all but reference. */
  readonly smoke?: readonly Role[];
  /** Oldest QEMU that knows how. */
  readonly since?: string;
  /** Newest QEMU that it is about. */
  readonly until?: string;
  /** Default pc; those that are played everywhere are played with both. */
  readonly chipsets?: readonly MachineKind[];
  /** Versions of machine types that it is played with, by the pairs that have them, beside the pair's own. */
  readonly machines?: readonly string[];
}

export interface LinuxGuest {
  readonly name: string;
  readonly machine: MachineKind;
  readonly cpus: number;
  readonly devices: readonly LinuxDevice[];
}
export type LinuxDevice = 'virtio-net' | 'virtio-blk' | 'e1000' | 'usb' | 'numa';

export type MachineKind = 'pc' | 'q35';

export interface Pair {
  /** Names of peers (major.minor): where the guest starts and where it ends. */
  readonly a: string;
  readonly b: string;
}

export interface Cell {
  readonly scenario: Scenario;
  readonly role: Role;
  readonly pair: Pair;
  /** Full name: pc-q35-7.2. */
  readonly machine: string;
  /** `boot` or a Linux guest. */
  readonly guest: 'boot' | LinuxGuest;
  /** Part of the subset that every test run plays. */
  readonly smoke: boolean;
}

export interface Result {
  readonly cell: string;
  readonly scenario: string;
  /** `between`: two vmferry processes (devices.ts). */
  readonly role: Role | 'between';
  readonly a: string;
  readonly b: string;
  readonly machine: string;
  readonly guest: string;
  readonly outcome: 'pass' | 'fail' | 'skip';
  /** Why it failed or was skipped. */
  readonly reason?: string;
  readonly ms: number;
}

/** State of the guest before it is moved. */
export function stateBefore({ stopped, suspended }: Scenario): 'running' | 'paused' | 'suspended' {
  if (stopped === true) return 'paused';
  return suspended === true ? 'suspended' : 'running';
}

/** That of it where it ends. */
export function stateAfter(scenario: Scenario): ReturnType<typeof stateBefore> {
  const woken = scenario.steps?.some((step) => 'act' in step && step.act === 'wake') ?? false;
  return woken ? 'running' : stateBefore(scenario);
}

export function guestName({ guest }: Cell): string {
  return guest === 'boot' ? 'boot' : guest.name;
}

export function cellName(cell: Cell): string {
  const { scenario, role, pair, machine } = cell;
  return `${scenario.id} ${role} ${pair.a}->${pair.b} ${machine} ${guestName(cell)}`;
}
