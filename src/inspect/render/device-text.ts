/** A device down to its fields, for people. */
import type { WalkedBody, WalkedField, WalkedLeaf } from '../../wire/index.ts';
import type { InspectedDevice } from '../inspection.ts';
import { type FieldValue, fieldValue } from '../value.ts';
import { hexOffset, number, type Paint, printable } from './columns.ts';

/** Of a field with many elements so many are shown, of bytes so many. */
const ELEMENTS_SHOWN = 8;
const BYTES_SHOWN = 24;

export function deviceText({ section, body, fields }: InspectedDevice, paint: Paint): string {
  const { idstr, instance, version, bodyOffset = 0 } = section;
  const where = `instance ${instance}, version ${version}, ${number(body.length)} bytes at ${hexOffset(bodyOffset)}`;
  const lines = fields === undefined ? [`  ${bytesText(body)}`] : bodyLines(fields, body, 1, paint);
  return [`${paint.bold(idstr)}  ${paint.dim(where)}`, ...lines].join('\n') + '\n';
}

function bodyLines(from: WalkedBody, body: Buffer, depth: number, paint: Paint): string[] {
  const indent = '  '.repeat(depth);
  const lines: string[] = [];
  const width = from.fields.reduce((max, { name }) => Math.max(max, name.length + 4), 0);
  from.fields.forEach((field, i) => {
    const name = printable(field.name) + elementIndex(from.fields, i);
    if (field.kind === 'leaf') {
      lines.push(`${indent}${name.padEnd(width)}  ${leafText(field, body)}  ${paint.dim(printable(field.type))}`);
    } else {
      lines.push(`${indent}${name}  ${paint.dim(title(field.body))}`, ...bodyLines(field.body, body, depth + 1, paint));
    }
  });
  for (const sub of from.subsections) {
    lines.push(`${indent}subsection ${paint.dim(title(sub))}`, ...bodyLines(sub, body, depth + 1, paint));
  }
  return lines;
}

/** `[3]` for an element of an array that is described one by one. */
function elementIndex(fields: readonly WalkedField[], i: number): string {
  const { name } = fields[i]!;
  if (fields[i - 1]?.name !== name && fields[i + 1]?.name !== name) return '';
  let first = i;
  while (fields[first - 1]?.name === name) first--;
  return `[${i - first}]`;
}

function title({ vmsdName, version }: WalkedBody): string {
  return `${printable(vmsdName ?? '')} version ${version ?? '?'}`;
}

function leafText(leaf: WalkedLeaf, body: Buffer): string {
  const shown: string[] = [];
  for (let i = 0; i < Math.min(leaf.count, ELEMENTS_SHOWN); i++) {
    const at = leaf.offset + i * leaf.size;
    shown.push(valueText(fieldValue(leaf, body.subarray(at, at + leaf.size)), leaf.type));
  }
  if (leaf.count === 1) return shown.join('');
  const all = body.subarray(leaf.offset, leaf.offset + leaf.size * leaf.count);
  if (!all.some((byte) => byte !== 0)) return `${leaf.count} x 0`;
  return `[${shown.join(' ')}${leaf.count > shown.length ? ` ... ${number(leaf.count)} elements` : ''}]`;
}

function valueText(value: FieldValue, type: string): string {
  switch (typeof value) {
    case 'undefined':
      return 'not armed';
    case 'number':
    case 'bigint':
      if (type === 'timer') return `${value} ns`;
      return value > 9 ? `0x${value.toString(16)} (${value})` : String(value);
    case 'boolean':
      return String(value);
    case 'string':
      return printable(value);
    case 'object':
      return bytesText(value);
  }
}

function bytesText(bytes: Buffer): string {
  if (bytes.length === 0) return 'nothing';
  if (!bytes.some((byte) => byte !== 0)) return `${number(bytes.length)} zero bytes`;
  const hex = bytes.toString('hex', 0, BYTES_SHOWN);
  return bytes.length > BYTES_SHOWN ? `${hex}... ${number(bytes.length)} bytes` : hex;
}
