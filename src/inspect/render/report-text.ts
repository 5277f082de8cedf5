/** A report for people. */
import { BYTE_KINDS, type ByteKind, type Report, type ReportedSection } from '../report.ts';
import { columns, hexOffset, number, type Paint, printable } from './columns.ts';

/** Commands shown; a postcopy stream can hold thousands of discards. */
const COMMANDS_SHOWN = 40;

export function reportText(report: Report, paint: Paint, wanted: (section: ReportedSection) => boolean): string {
  const parts = [
    summary(report, paint),
    commands(report, paint),
    sections(report, paint, wanted),
    ram(report, paint),
    bytes(report, paint),
    damage(report, paint),
  ];
  return parts
    .filter((lines) => lines.length > 0)
    .map((lines) => lines.join('\n') + '\n')
    .join('\n');
}

function summary(report: Report, paint: Paint): string[] {
  const { configuration, description, format, runState } = report;
  const kind = format === 'mapped-ram' ? 'migration stream with mapped RAM' : 'migration stream';
  const facts: (readonly [string, string | undefined])[] = [
    ['machine type', configuration?.machineType],
    ['page size', configuration && number(configuration.pageSize)],
    ['capabilities', configuration?.capabilities.join(', ') || undefined],
    ['uuid', configuration?.uuid],
    ['run state', runState && printable(runState)],
    ['stream begins', report.streamOffset === 0 ? undefined : `at ${hexOffset(report.streamOffset)}`],
    ['description', description ? descriptionText(report) : 'none'],
  ];
  const shown = facts.filter(([, value]) => value !== undefined);
  return [
    `${paint.bold(report.file)}: ${kind}, ${number(report.fileBytes)} bytes`,
    ...shown.map(([label, value]) => `  ${label.padEnd(13)}  ${value}`),
  ];
}

function descriptionText({ description, sections }: Report): string {
  if (description === undefined) return 'none';
  const exact = sections.filter(({ described }) => described === 'exactly').length;
  const split = description.usedToSplit ? '; without it the sections could not be told apart' : '';
  const { offset, bytes, devices } = description;
  return `${number(bytes)} bytes at ${hexOffset(offset)}, ${devices} devices, ${exact} sections exactly as described${split}`;
}

function commands(report: Report, paint: Paint): string[] {
  if (report.commandCount === 0) return [];
  const rows = report.commands
    .slice(0, COMMANDS_SHOWN)
    .map(({ offset, name, detail }) => [hexOffset(offset), name, printable(detail)]);
  const more = report.commandCount - rows.length;
  return [
    paint.bold('Commands'),
    ...columns(
      paint,
      [
        ['offset', 'right'],
        ['command', 'left'],
        ['payload', 'left'],
      ],
      rows,
    ),
    ...(more > 0 ? [`  ... and ${number(more)} more`] : []),
  ];
}

function sections(report: Report, paint: Paint, wanted: (section: ReportedSection) => boolean): string[] {
  const rows = report.sections
    .filter(wanted)
    .map((section) => [
      hexOffset(section.offset),
      number(section.bytes),
      section.kind.toUpperCase() + (section.count > 1 ? ` x${number(section.count)}` : ''),
      String(section.id),
      section.idstr,
      String(section.instance),
      String(section.version),
      section.described === undefined || section.described === 'exactly' ? '' : `described ${section.described}`,
    ]);
  if (rows.length === 0) return [paint.bold('Sections'), '  none'];
  const head = [
    ['offset', 'right'],
    ['bytes', 'right'],
    ['kind', 'left'],
    ['id', 'right'],
    ['name', 'left'],
    ['instance', 'right'],
    ['version', 'right'],
    ['', 'left'],
  ] as const;
  return [paint.bold('Sections'), ...columns(paint, head, rows)];
}

function ram({ ram }: Report, paint: Paint): string[] {
  if (ram === undefined) return [];
  const rows = ram.blocks.map(({ idstr, usedLength, normal, zero, xbzrle, pageSize, guestAddress, mapped }) => [
    idstr,
    number(usedLength),
    number(normal),
    number(zero),
    number(xbzrle),
    [
      pageSize === undefined ? '' : `host pages of ${number(pageSize)}`,
      guestAddress === undefined ? '' : `guest address ${hexOffset(guestAddress)}`,
      mapped === undefined
        ? ''
        : mapped.pagesOffset === 0
          ? 'not in the file'
          : `pages at ${hexOffset(mapped.pagesOffset)}`,
    ]
      .filter((text) => text !== '')
      .join(', '),
  ]);
  const head = [
    ['block', 'left'],
    ['bytes', 'right'],
    ['normal', 'right'],
    ['zero', 'right'],
    ['xbzrle', 'right'],
    ['', 'left'],
  ] as const;
  const flushes =
    ram.multifdFlushes === 0 ? [] : [`  ${number(ram.multifdFlushes)} multifd flushes: pages came over other channels`];
  return [
    paint.bold('RAM') + `  pages by kind, ${number(ram.totalBytes)} bytes`,
    ...columns(paint, head, rows),
    ...flushes,
  ];
}

function bytes(report: Report, paint: Paint): string[] {
  const rows = (Object.keys(BYTE_KINDS) as ByteKind[])
    .filter((kind) => report.bytes[kind] !== undefined)
    .map((kind) => [BYTE_KINDS[kind], number(report.bytes[kind] ?? 0)]);
  const lost = report.unaccounted.map(({ offset, bytes }) => [
    `not understood, from ${hexOffset(offset)}`,
    number(bytes),
  ]);
  const total = ['all of the file', number(report.fileBytes)];
  return [
    paint.bold('Bytes'),
    ...columns(
      paint,
      [
        ['', 'left'],
        ['', 'right'],
      ],
      [...rows, ...lost, total],
    ).slice(1),
  ];
}

function damage({ damage }: Report, paint: Paint): string[] {
  if (damage === undefined) return [];
  const { offset, path, expected, found } = damage;
  return [
    paint.red(`Damaged at offset ${number(offset)} (${hexOffset(offset)})`),
    ...(path === '' ? [] : [`  in        ${printable(path)}`]),
    `  expected  ${printable(expected)}`,
    `  found     ${printable(found)}`,
  ];
}
