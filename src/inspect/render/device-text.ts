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
  const entries = elements(from.fields, body);
  const width = entries.reduce((max, { label, field }) => Math.max(max, field.kind === 'leaf' ? label.length : 0), 0);
  for (const { label, field } of entries) {
    if (field.kind === 'leaf') {
      lines.push(`${indent}${label.padEnd(width)}  ${leafText(field, body)}  ${paint.dim(printable(field.type))}`);
    } else {
      lines.push(
        `${indent}${label}  ${paint.dim(title(field.body))}`,
        ...bodyLines(field.body, body, depth + 1, paint),
      );
    }
  }
  for (const sub of from.subsections) {
    lines.push(`${indent}subsection ${paint.dim(title(sub))}`, ...bodyLines(sub, body, depth + 1, paint));
  }
  return lines;
}

interface Element {
  readonly label: string;
  readonly field: WalkedField;
}

/**
 * The fields with what they are called: neighbours that share a name are one array (`sq[1]`). A marker in front of an element says
 * nothing that the element does not, and null pointers in a row are one line (`sq[2..64]`).
 */
function elements(fields: readonly WalkedField[], body: Buffer): Element[] {
  const found: Element[] = [];
  for (let i = 0; i < fields.length; ) {
    const field = fields[i]!;
    const name = printable(field.name);
    let end = i + 1;
    while (fields[end]?.name === field.name) end++;
    if (end === i + 1) found.push({ label: name, field });
    else found.push(...arrayElements(name, fields.slice(i, end), body));
    i = end;
  }
  return found;
}

function arrayElements(name: string, array: readonly WalkedField[], body: Buffer): Element[] {
  const found: Element[] = [];
  let index = 0;
  for (let i = 0; i < array.length; i++) {
    const field = array[i]!;
    if (isPointer(field, body, 'valid')) continue;
    const first = index++;
    if (isPointer(field, body, 'null')) {
      for (; i + 1 < array.length && isPointer(array[i + 1]!, body, 'null'); i++) index++;
    }
    found.push({ label: `${name}[${first === index - 1 ? first : `${first}..${index - 1}`}]`, field });
  }
  return found;
}

function isPointer(field: WalkedField, body: Buffer, value: 'valid' | 'null'): boolean {
  if (field.kind !== 'leaf' || (field.type !== 'ptr-marker' && field.type !== 'nullptr')) return false;
  return fieldValue(field, body.subarray(field.offset, field.offset + field.size)) === value;
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
