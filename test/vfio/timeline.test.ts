/** Spans of both sides put together: the parts of the downtime add up, whatever overlaps. */
import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import {
  type DeviceRecord,
  DOWNTIME_PARTS,
  SPAN_KINDS,
  SPANS,
  type SpanKind,
  type TimedSpan,
  timelineOf,
} from '../../src/vfio/index.ts';

type Times = Partial<Record<SpanKind, readonly [startMs: number, endMs: number]>>;

function record(number: number, times: Times): DeviceRecord {
  const spans = Object.entries(times).map(
    ([kind, [startMs, endMs]]): TimedSpan => ({ kind: kind as SpanKind, startMs, endMs, bytes: 1 }),
  );
  return { name: `vf${number}`, section: `slot${number}/vfio`, stateBytes: 4096, initialBytes: undefined, spans };
}

test('each part lasts from the end of the one before until the last device is through with it', () => {
  const source = [
    record(0, { precopy: [900, 1000], stop: [1000, 1004], save: [1004, 1050], send: [1006, 1051] }),
    record(1, { precopy: [900, 1000], stop: [1000, 1004], save: [1004, 1080], send: [1006, 1081] }),
  ];
  const destination = [
    record(0, { receive: [1007, 1055], load: [1008, 1060], config: [1060, 1130], start: [1160, 1170] }),
    record(1, { receive: [1007, 1085], load: [1008, 1083], config: [1083, 1153], start: [1160, 1171] }),
  ];
  const timeline = timelineOf(source, destination.toReversed())!;
  assert.deepEqual(timeline.parts, { stop: 4, save: 76, transfer: 5, load: 0, config: 68, 'hand-over': 7, start: 11 });
  assert.equal(timeline.downtimeMs, 171);
  const [first, second] = timeline.devices;
  assert.deepEqual(first?.transfer, { startMs: 6, endMs: 55 });
  assert.deepEqual(second?.transfer, { startMs: 6, endMs: 85 });
  assert.equal(first?.spans[0]?.startMs, -100, 'what was before the stop is before 0');
  assert.deepEqual(
    second?.spans.map(({ kind }) => kind),
    ['precopy', 'stop', 'save', 'send', 'receive', 'load', 'config', 'start'],
  );
});

test('no time line without a guest that stopped here and started there', () => {
  const stopped = record(0, { stop: [0, 1] });
  const started = record(0, { start: [2, 3] });
  assert.equal(timelineOf([], []), undefined);
  assert.equal(timelineOf([stopped], [record(0, { load: [1, 2] })]), undefined);
  assert.equal(timelineOf([record(0, { precopy: [0, 1] })], [started]), undefined);
  assert.notEqual(timelineOf([stopped], [started]), undefined);
  // What the sides recorded when they were the other side of an earlier move says nothing of this one.
  assert.equal(timelineOf([started], [stopped]), undefined);
});

test('the parts add up to the downtime', () => {
  const times = fc.tuple(fc.nat(1000), fc.nat(1000)).map(([a, b]) => [10 + a, 10 + a + b] as const);
  const side = (which: 'source' | 'destination') =>
    fc.record(
      Object.fromEntries(SPAN_KINDS.filter((kind) => SPANS[kind].side === which).map((kind) => [kind, times])),
      { requiredKeys: [] },
    );
  const devices = fc.array(fc.tuple(side('source'), side('destination')), { minLength: 1, maxLength: 4 });
  fc.assert(
    fc.property(devices, (all) => {
      const source = all.map(([ours], i) => record(i, { ...ours, stop: [10, 12] }));
      const destination = all.map(([, theirs], i) => record(i, { ...theirs, start: [4000, 4010 + i] }));
      const { parts, downtimeMs } = timelineOf(source, destination)!;
      assert.deepEqual(Object.keys(parts), Object.keys(DOWNTIME_PARTS));
      assert.ok(Object.values(parts).every((ms) => ms >= 0));
      assert.ok(Math.abs(downtimeMs - (4010 + all.length - 1 - 10)) < 1e-6);
    }),
  );
});
