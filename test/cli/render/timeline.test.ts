import assert from 'node:assert/strict';
import test from 'node:test';
import { timelineFacts, timelineText } from '../../../src/cli/render/timeline.ts';
import type { Timeline } from '../../../src/vfio/index.ts';

const TIMELINE: Timeline = {
  downtimeMs: 128,
  parts: { stop: 4, save: 60, transfer: 2, load: 2, config: 40, 'hand-over': 10, start: 10 },
  devices: [
    {
      name: 'vf0',
      section: '0000:00:04.0/vfio',
      stateBytes: 1024 ** 2,
      initialBytes: 4096,
      transfer: { startMs: 6, endMs: 66 },
      spans: [
        { kind: 'initial', startMs: -50.00004, endMs: -20, bytes: 0 },
        { kind: 'stop', startMs: 0, endMs: 4, bytes: 0 },
        { kind: 'save', startMs: 4, endMs: 64, bytes: 9 },
        { kind: 'load', startMs: 8, endMs: 68, bytes: 9 },
        { kind: 'config', startMs: 68, endMs: 108, bytes: 3 },
        { kind: 'start', startMs: 118, endMs: 128, bytes: 0 },
      ],
    },
    {
      name: 'vf10',
      section: '0000:00:05.0/vfio',
      stateBytes: undefined,
      initialBytes: undefined,
      transfer: undefined,
      spans: [],
    },
  ],
};

test('a column of the drawing is as long for all spans; a device of which nothing is known has empty rows', () => {
  const lines = timelineText(TIMELINE).split('\n');
  const at = lines.findIndex((line) => line.endsWith('128 ms') && line.trimStart().startsWith('0'));
  const drawn = lines.slice(at + 1, at + 7);
  assert.deepEqual(
    drawn.map((line) => line.length),
    Array(6).fill('  vf10  ||'.length + 64),
  );
  // 2 ms a column.
  assert.deepEqual(drawn.slice(0, 3), [
    `  vf0   |==${'S'.repeat(31)}${' '.repeat(31)}|`,
    `        |   ${'T'.repeat(31)}${' '.repeat(30)}|`,
    `        |    ${'L'.repeat(30)}${'C'.repeat(21)}${' '.repeat(4)}${'R'.repeat(5)}|`,
  ]);
  assert.match(drawn[3]!, /^ {2}vf10 {2}\| +\|$/);
});

test('the table has a dash for what is not known, the parts are all there', () => {
  const text = timelineText(TIMELINE);
  assert.match(text, /^ {2}vf0 +1\.00 MiB +4\.00 KiB +-20 ms +60 ms +60 ms +60 ms +40 ms$/m);
  assert.match(text, /^ {2}vf10( +-){7}$/m);
  for (const part of ['stop', 'save', 'transfer', 'load', 'config', 'hand-over', 'start'])
    assert.match(text, new RegExp(`^ {2}${part} +\\d+ ms `, 'm'));
  assert.match(text, /^ {2}in all +128 ms$/m);
});

test('programs get ms to the microsecond, and nothing where nothing is known', () => {
  const { devices, downtimeMs } = JSON.parse(JSON.stringify(timelineFacts(TIMELINE)));
  assert.equal(downtimeMs, 128);
  assert.deepEqual(devices[0].spans[0], { kind: 'initial', startMs: -50, endMs: -20, bytes: 0 });
  assert.equal(devices[0].ackedMs, -20);
  assert.deepEqual(devices[1], { name: 'vf10', section: '0000:00:05.0/vfio', spans: [] });
});
