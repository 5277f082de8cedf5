/** The devices of a migration and its downtime, for programs and, drawn, for people. */
import {
  type DeviceTimeline,
  DOWNTIME_PARTS,
  type DowntimePart,
  type SpanKind,
  type Timeline,
} from '../../vfio/index.ts';
import { formatBytes, formatDuration } from './quantity.ts';
import { pairs, table } from './table.ts';

/** Times in ms since the stop of the guest, to the microsecond. */
export function timelineFacts({ downtimeMs, parts, devices }: Timeline): object {
  return {
    downtimeMs: rounded(downtimeMs),
    parts: Object.fromEntries(Object.entries(parts).map(([part, ms]) => [part, rounded(ms)])),
    devices: devices.map((device) => ({
      name: device.name,
      section: device.section,
      stateBytes: device.stateBytes,
      initialBytes: device.initialBytes,
      ackedMs: roundedOr(spanOf(device, 'initial')?.endMs),
      transfer: device.transfer && span(device.transfer),
      spans: device.spans.map(({ kind, bytes, ...times }) => ({ kind, ...span(times), bytes })),
    })),
  };
}

/** A table of the devices, their spans drawn, and the parts of the downtime. */
export function timelineText(timeline: Timeline): string {
  return [devicesTable(timeline), drawing(timeline), partsText(timeline)].join('\n');
}

function devicesTable({ devices }: Timeline): string {
  const head = ['device', 'state', 'initial', 'acked at', 'save', 'transfer', 'load', 'config load'];
  const rows = devices.map((device) => [
    device.name,
    device.stateBytes === undefined ? '-' : formatBytes(device.stateBytes),
    device.initialBytes === undefined ? '-' : formatBytes(device.initialBytes),
    formatted(spanOf(device, 'initial')?.endMs),
    lengthOf(spanOf(device, 'save')),
    lengthOf(device.transfer),
    lengthOf(spanOf(device, 'load')),
    lengthOf(spanOf(device, 'config')),
  ]);
  return table(head, rows);
}

const COLUMNS = 64;
/** What a row of the drawing shows of a device, and by which letter. */
const ROWS: readonly (readonly (readonly [letter: string, what: SpanKind | 'transfer'])[])[] = [
  [
    ['=', 'stop'],
    ['S', 'save'],
  ],
  [['T', 'transfer']],
  [
    ['L', 'load'],
    ['C', 'config'],
    ['R', 'start'],
  ],
];
const LEGEND = '= stops  S saved  T on its way  L loaded  C configuration loaded  R starts';

function drawing({ devices, downtimeMs }: Timeline): string {
  const width = Math.max(...devices.map(({ name }) => name.length));
  const end = `${Math.round(downtimeMs)} ms`;
  const axis = `  ${' '.repeat(width)}  0${end.padStart(COLUMNS)}\n`;
  const lines = devices.flatMap((device) =>
    ROWS.map((row, i) => {
      const bars = row.map(([letter, what]): Bar => {
        return [letter, what === 'transfer' ? device.transfer : spanOf(device, what)];
      });
      return `  ${(i === 0 ? device.name : '').padEnd(width)}  |${draw(bars, downtimeMs)}|\n`;
    }),
  );
  return `${axis}${lines.join('')}  ${' '.repeat(width)}  ${LEGEND}\n`;
}

type Bar = readonly [letter: string, span: Times | undefined];

/** What is not over before 0 or begins after the end is cut there; what is short is still seen. */
function draw(bars: readonly Bar[], wholeMs: number): string {
  const columns = Array.from({ length: COLUMNS }, () => ' ');
  const column = (ms: number) => Math.min(COLUMNS - 1, Math.max(0, Math.floor((ms / wholeMs) * COLUMNS)));
  for (const [letter, times] of bars) {
    if (times === undefined || times.endMs < 0) continue;
    columns.fill(letter, column(times.startMs), column(times.endMs) + 1);
  }
  return columns.join('');
}

function partsText({ downtimeMs, parts }: Timeline): string {
  const rows = Object.entries(DOWNTIME_PARTS).map(
    ([part, doc]) => [part, `${formatDuration(parts[part as DowntimePart]).padStart(7)}  ${doc}`] as const,
  );
  return `downtime\n${pairs([...rows, ['in all', formatDuration(downtimeMs).padStart(7)]])}`;
}

interface Times {
  readonly startMs: number;
  readonly endMs: number;
}

function spanOf(device: DeviceTimeline, kind: SpanKind) {
  return device.spans.find((one) => one.kind === kind);
}

function lengthOf(times: Times | undefined): string {
  return times === undefined ? '-' : formatDuration(times.endMs - times.startMs);
}

function formatted(ms: number | undefined): string {
  return ms === undefined ? '-' : `${Math.round(ms)} ms`;
}

function span({ startMs, endMs }: Times): Times {
  return { startMs: rounded(startMs), endMs: rounded(endMs) };
}

function rounded(ms: number): number {
  return Math.round(ms * 1000) / 1000;
}

function roundedOr(ms: number | undefined): number | undefined {
  return ms === undefined ? undefined : rounded(ms);
}
