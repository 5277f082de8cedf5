/**
 * The mismatch table as data: what one end has and the other has not x which end that is x who the two ends are. `rows.ts` and `device-rows.ts` list what
 * can differ, `columns.ts` the ends and which cells there are, `between.ts`, `with-qemu.ts` and `driven.ts` play one, `judge.ts` says whether that is good.
 */
import type { WorkloadOptions } from '../../../src/machine/index.ts';
import type { VfParameters } from '../../../src/vfio/index.ts';

export type Value = string | number | boolean;

/** What an end has set, by the names of QMP; vmferry's own and QEMU's alike. */
export interface Having {
  readonly capabilities?: readonly string[];
  readonly parameters?: Readonly<Record<string, Value>>;
}

/** What an end is made of, beside its settings. */
export interface Hardware {
  /** vmferry: emulated VFs, and what the machine itself is like. */
  readonly vfs?: readonly Partial<VfParameters>[];
  readonly workload?: Partial<WorkloadOptions>;
  /** Compat properties switched by hand, NAME=VALUE: --compat of vmferry, -global migration.NAME=VALUE of QEMU. */
  readonly compat?: readonly string[];
  /** QEMU: further arguments. */
  readonly args?: readonly string[];
}

export const KINDS = ['capability', 'parameter', 'device', 'machine'] as const;
export type Kind = (typeof KINDS)[number];

export interface Row {
  readonly kind: Kind;
  /** Unique; the name of the setting, if need be with its value or with what else is on. */
  readonly title: string;
  /** What a refusal must say; matches the name of the setting or of the device. */
  readonly named: RegExp;
  /** At both ends. */
  readonly both: Having & Hardware;
  /** At the one, in place of that or beside it. */
  readonly one: Having & Hardware;
  /** The migration goes over to postcopy. */
  readonly postcopy?: true;
  /** By its declaration the difference does no harm: the cell must migrate. */
  readonly harmless?: true;
  /** Only between such ends is it a difference, or can it be had. */
  readonly ends: 'all' | 'vmferry' | 'qemu';
}

/** The end that has what the other has not. */
export const SIDES = ['source', 'destination'] as const;
export type Side = (typeof SIDES)[number];

export type Column =
  /** Two vmferry ends; `handshake`: they compare themselves first, as `vmferry migrate` has them do. */
  | { readonly way: 'between'; readonly handshake: boolean }
  /** A checkpoint is sent to a QEMU of that version. */
  | { readonly way: 'out'; readonly version: string }
  /** A QEMU of that version sends into a checkpoint. */
  | { readonly way: 'in'; readonly version: string }
  /** Between two QEMUs of that version, driven by `vmferry migrate`, which looks at both first. */
  | { readonly way: 'driven'; readonly version: string };

export interface Cell {
  readonly row: Row;
  readonly side: Side;
  readonly column: Column;
}

/** What came of a try. */
export interface Played {
  /** One end was not to be had so, before there was a migration: in whose words. */
  readonly notTaken?: string;
  readonly ends: readonly EndReport[];
  /** From the command that begins the migration to its end, ms. */
  readonly ms: number;
}

export interface EndReport {
  readonly who: 'vmferry' | 'QEMU';
  readonly side: Side;
  readonly completed: boolean;
  /** Why it did not complete, in its words. */
  readonly words: string;
  /** The declared wait whose deadline has ended it, if one has: its parameter. */
  readonly deadline?: string | undefined;
  /** Differences that were settled. */
  readonly settled?: readonly string[];
}

export type Outcome = 'migrates' | 'settled' | 'refused' | 'refused late' | 'unseen' | 'not taken' | 'skip' | 'fail';

export interface Result {
  readonly cell: string;
  readonly row: string;
  readonly side: Side;
  readonly column: string;
  readonly outcome: Outcome;
  /** The words that name the difference, or why the cell failed or was skipped. */
  readonly words: string;
  readonly ms: number;
}

export function columnName(column: Column): string {
  switch (column.way) {
    case 'between':
      return column.handshake ? 'vmferry -> vmferry' : 'vmferry -> vmferry, no handshake';
    case 'out':
      return `vmferry -> QEMU ${column.version}`;
    case 'in':
      return `QEMU ${column.version} -> vmferry`;
    case 'driven':
      return `QEMU ${column.version} -> QEMU ${column.version}`;
  }
}

export function cellName({ row, side, column }: Cell): string {
  return `${columnName(column)}: ${row.title} at the ${side} only`;
}

/** All that the end at `at` has. */
export function endOf({ row: { both, one }, side }: Cell, at: Side): Having & Hardware {
  if (at !== side) return both;
  return {
    ...both,
    ...one,
    capabilities: [...(both.capabilities ?? []), ...(one.capabilities ?? [])],
    parameters: { ...both.parameters, ...one.parameters },
  };
}
