/**
 * The JSON that QEMU's own analyser (scripts/analyze-migration.py) prints, for tools that are made for it. Our own reading of its shape:
 *
 *     { "<idstr> (<section id>)": device | ram, ... }       sections in order of their first appearance
 *     ram       { "section sizes": { <block>: "0x<length, 16 digits>" } }
 *     device    { <field>: value, ..., <subsection name>: device, ... }
 *     value     integers "0x<all digits>", negative ones followed by " (<decimal>)"; bool true/false; struct an object;
 *               null pointers "nullptr"; everything else its bytes in hex with blanks between
 *     array     a list, also made by fields that share a name
 */
import { FerryError } from '../base/index.ts';
import type { WalkedBody, WalkedLeaf } from '../wire/index.ts';
import type { Inspection } from './inspection.ts';
import type { ReportedSection } from './report.ts';

export type AnalyzeFault =
  | { readonly code: 'INSPECT_NO_DESCRIPTION' }
  | { readonly code: 'INSPECT_NOT_DESCRIBED'; readonly idstr: string; readonly offset: number }
  | { readonly code: 'INSPECT_TOO_LARGE'; readonly field: string; readonly bytes: number };

/** Bytes of one field that are spelled out: three characters each, and a JavaScript string ends at 512 Mi of them. */
const SPELLED_MAX = 64 * 1024 * 1024;

type Json = string | boolean | Json[] | { [name: string]: Json };

/** "uint8 equal" and "uint16 equal" are shown as signed there. */
const SIGNED = new Set([
  'int8',
  'int16',
  'int32',
  'int64',
  'int32 equal',
  'int32 le',
  'int64 equal',
  'uint8 equal',
  'uint16 equal',
]);
const UNSIGNED = new Set(['uint8', 'uint16', 'uint32', 'uint64', 'uint32 equal']);

/** `-d desc`: the description itself. Throws INSPECT_NO_DESCRIPTION. */
export function analyzeDescription({ report, description }: Inspection): string {
  if (description === undefined) throw noDescription(report.file);
  return ascii(JSON.stringify(JSON.parse(description), null, 4)) + '\n';
}

/** `-d state`, text piece by piece. Throws AnalyzeFault if a section is not described. */
export async function* analyzeState(inspection: Inspection): AsyncGenerator<string> {
  const { report, description } = inspection;
  if (description === undefined) throw noDescription(report.file);
  let before = '';
  const piece = (section: ReportedSection, value: Json) => {
    // One member of an object, indented as its part of the whole.
    const text = ascii(JSON.stringify({ [`${section.idstr} (${section.id})`]: value }, null, 4)).slice(1, -2);
    const joined = before + text;
    before = ',';
    return joined;
  };
  yield '{';
  const ramSection = report.sections.find(({ kind, idstr }) => kind === 'start' && idstr === 'ram');
  let ramIsDue = ramSection !== undefined && report.ram !== undefined;
  for await (const { section, body, fields } of inspection.devices()) {
    if (ramIsDue && section.offset > ramSection!.offset) {
      ramIsDue = false;
      yield piece(ramSection!, ramValue(inspection));
    }
    if (fields === undefined) {
      const { idstr, offset } = section;
      const fault: AnalyzeFault = { code: 'INSPECT_NOT_DESCRIBED', idstr, offset };
      throw new FerryError(fault, `${report.file}: section ${idstr} at offset ${offset} is not in the description`);
    }
    yield piece(section, bodyValue(fields, body));
  }
  if (ramIsDue) yield piece(ramSection!, ramValue(inspection));
  yield before === '' ? '}\n' : '\n}\n';
}

function noDescription(file: string): FerryError<AnalyzeFault> {
  return new FerryError(
    { code: 'INSPECT_NO_DESCRIPTION' },
    `${file}: the stream carries no description of its devices`,
  );
}

function ramValue({ report }: Inspection): Json {
  const sizes = members();
  for (const { idstr, usedLength } of report.ram?.blocks ?? []) {
    sizes[idstr] = `0x${usedLength.toString(16).padStart(16, '0')}`;
  }
  return { 'section sizes': sizes };
}

function bodyValue(from: WalkedBody, body: Buffer): Json {
  const into = members();
  for (const field of from.fields) {
    if (field.kind === 'struct') add(into, field.name, bodyValue(field.body, body));
    else {
      for (let i = 0; i < field.count; i++) {
        const at = field.offset + i * field.size;
        add(into, field.name, leafValue(field, body.subarray(at, at + field.size)));
      }
    }
  }
  for (const subsection of from.subsections) into[subsection.vmsdName ?? ''] = bodyValue(subsection, body);
  return into;
}

/** Names come from the stream: none may reach a prototype. */
function members(): { [name: string]: Json } {
  return Object.create(null) as { [name: string]: Json };
}

function add(into: { [name: string]: Json }, name: string, value: Json): void {
  const there = into[name];
  if (there === undefined) into[name] = value;
  else if (Array.isArray(there)) there.push(value);
  else into[name] = [there, value];
}

function leafValue({ name, type, size }: WalkedLeaf, bytes: Buffer): Json {
  if (size > SPELLED_MAX) {
    const fault: AnalyzeFault = { code: 'INSPECT_TOO_LARGE', field: name, bytes: size };
    throw new FerryError(fault, `field ${name} of ${size} bytes is too large to be spelled out`);
  }
  if (size > 0 && (SIGNED.has(type) || UNSIGNED.has(type))) {
    const hex = bytes.toString('hex');
    const value = BigInt.asIntN(8 * size, BigInt(`0x${hex}`));
    return value < 0n && SIGNED.has(type) ? `0x${hex} (${value})` : `0x${hex}`;
  }
  if (type === 'bool') return bytes[0] !== 0;
  if (type === 'nullptr') return 'nullptr';
  return hexBytes(bytes);
}

/** `00 1f a2` */
function hexBytes(bytes: Buffer): string {
  return bytes.toString('hex').replace(/..(?!$)/g, '$& ');
}

/** JSON with everything outside printable ASCII escaped. */
function ascii(json: string): string {
  return json.replace(/[\u007f-\uffff]/g, (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`);
}
