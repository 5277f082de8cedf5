/** Both sides of one migration put together: what each device did and when, and where the downtime went. Pure. */
import { SPANS, type SpanKind } from './machine/spans.ts';

export interface TimedSpan {
  readonly kind: SpanKind;
  /** ms. */
  readonly startMs: number;
  readonly endMs: number;
  readonly bytes: number;
}

/** What one side knows of a device; times by a clock that both sides share. */
export interface DeviceRecord {
  readonly name: string;
  /** Name of its section: both sides know it by that. */
  readonly section: string;
  readonly stateBytes: number | undefined;
  readonly initialBytes: number | undefined;
  readonly spans: readonly TimedSpan[];
}

export interface DeviceTimeline {
  readonly name: string;
  readonly section: string;
  readonly stateBytes: number | undefined;
  readonly initialBytes: number | undefined;
  /** From the first of it that goes out to the last that comes in. */
  readonly transfer: { readonly startMs: number; readonly endMs: number } | undefined;
  /** In the order of their beginnings. */
  readonly spans: readonly TimedSpan[];
}

/**
 * Parts of the downtime: each lasts from the end of the one before until the last device is through with it. So what goes on at the same time
 * counts once, for the earlier part, and the parts add up to the downtime.
 */
export const DOWNTIME_PARTS = {
  stop: 'until guest and devices stand',
  save: 'until the last device is read',
  transfer: 'until the last of it is in memory over there',
  load: 'until the last device has taken and checked it',
  config: 'until the last configuration is loaded',
  'hand-over': 'what is left of the stream (RAM, other devices), and the word that all is loaded',
  start: 'until devices and guest run',
} as const;

export type DowntimePart = keyof typeof DOWNTIME_PARTS;

/** All times are ms since the guest was stopped. */
export interface Timeline {
  readonly downtimeMs: number;
  readonly parts: Readonly<Record<DowntimePart, number>>;
  readonly devices: readonly DeviceTimeline[];
}

/** Undefined: there are no devices, or they did not get so far that a guest stopped here and runs there. */
export function timelineOf(
  source: readonly DeviceRecord[],
  destination: readonly DeviceRecord[],
): Timeline | undefined {
  const ours = source.flatMap(({ spans }) => ofSide(spans, 'source'));
  const theirs = destination.flatMap(({ spans }) => ofSide(spans, 'destination'));
  const stops = ours.filter(({ kind }) => kind === 'stop');
  const starts = theirs.filter(({ kind }) => kind === 'start');
  if (stops.length === 0 || starts.length === 0) return undefined;
  const zero = Math.min(...stops.map(({ startMs }) => startMs));
  const all = [...ours, ...theirs].map((span) => shifted(span, zero));
  const parts = partsOf(all);
  return {
    downtimeMs: Object.values(parts).reduce((sum, ms) => sum + ms, 0),
    parts,
    devices: source.map((record) => {
      const far = destination.find(({ section }) => section === record.section);
      return deviceOf(record, far?.spans ?? [], zero);
    }),
  };
}

function partsOf(spans: readonly TimedSpan[]): Record<DowntimePart, number> {
  const last = (...kinds: readonly SpanKind[]) =>
    Math.max(...spans.filter(({ kind }) => kinds.includes(kind)).map(({ endMs }) => endMs));
  const starts = spans.filter(({ kind }) => kind === 'start').map(({ startMs }) => startMs);
  const ends: Record<DowntimePart, number> = {
    stop: last('stop'),
    save: last('save'),
    transfer: last('send', 'receive'),
    load: last('load'),
    config: last('config'),
    'hand-over': Math.min(...starts),
    start: last('start'),
  };
  let at = 0;
  const lengths = Object.entries(ends).map(([part, end]) => {
    const ms = Math.max(0, end - at);
    at += ms;
    return [part, ms];
  });
  return Object.fromEntries(lengths) as Record<DowntimePart, number>;
}

function deviceOf(record: DeviceRecord, far: readonly TimedSpan[], zero: number): DeviceTimeline {
  const { name, section, stateBytes, initialBytes } = record;
  const both = [...ofSide(record.spans, 'source'), ...ofSide(far, 'destination')].map((span) => shifted(span, zero));
  const moved = both.filter(({ kind }) => kind === 'send' || kind === 'receive');
  const startMs = Math.min(...moved.map((span) => span.startMs));
  const endMs = Math.max(...moved.map((span) => span.endMs));
  return {
    name,
    section,
    stateBytes,
    initialBytes,
    transfer: moved.length === 0 ? undefined : { startMs, endMs },
    spans: both.sort((a, b) => a.startMs - b.startMs),
  };
}

function ofSide(spans: readonly TimedSpan[], side: 'source' | 'destination'): readonly TimedSpan[] {
  return spans.filter(({ kind }) => SPANS[kind].side === side);
}

function shifted(span: TimedSpan, zero: number): TimedSpan {
  return { ...span, startMs: span.startMs - zero, endMs: span.endMs - zero };
}
