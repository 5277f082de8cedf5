import { REQUIRED_PEERS } from '../../../src/qemu/index.ts';
import {
  type CapabilityName,
  capabilityDeclaration,
  isKnownTo,
  type ParameterName,
  parameterDeclaration,
} from '../../../src/settings/index.ts';
import { type Cell, type Column, cellName, endOf, type Having, type Row, SIDES, type Side } from './model.ts';
import { ROWS } from './rows.ts';

export const COLUMNS: readonly Column[] = [
  { way: 'between', handshake: true },
  { way: 'between', handshake: false },
  ...(['out', 'in', 'driven'] as const).flatMap((way) => REQUIRED_PEERS.map((version) => ({ way, version }) as const)),
];

export function allCells(): readonly Cell[] {
  return ROWS.flatMap((row) => SIDES.flatMap((side) => COLUMNS.map((column) => ({ row, side, column })))).filter(
    exists,
  );
}

/** Whether the two ends can differ so. */
function exists(cell: Cell): boolean {
  const { row, side, column } = cell;
  if (column.way === 'between') return row.ends !== 'qemu' && !(column.handshake && isHandshake(row));
  if (row.ends === 'vmferry') return false;
  // A checkpoint has no machine before one comes.
  if (column.way === 'in' && isHardware(row)) return false;
  return SIDES.every((at) => !isQemu(column, at) || (knows(column.version, endOf(cell, at)) && has(row, at === side)));
}

const isHandshake = ({ title }: Row) => title === 'x-vmferry-handshake';
const isHardware = ({ kind }: Row) => kind === 'device' || kind === 'machine';
const has = (row: Row, here: boolean) => !here || !isHardware(row) || row.one.args !== undefined;

export function isQemu({ way }: Column, at: Side): boolean {
  return way === 'driven' || way === (at === 'source' ? 'in' : 'out');
}

/** QEMU's own settings of its time. */
function knows(version: string, { capabilities = [], parameters = {} }: Having): boolean {
  const declared = [
    ...capabilities.map((name) => capabilityDeclaration(name as CapabilityName)),
    ...Object.keys(parameters).map((name) => parameterDeclaration(name as ParameterName)),
  ];
  return declared.every((one) => one.since !== 'vmferry' && isKnownTo(`pc-${version}`, one));
}

/** Those of which the name contains every text. */
export function chosen(texts: readonly string[]): readonly Cell[] {
  return allCells().filter((cell) => texts.every((text) => cellName(cell).includes(text)));
}
