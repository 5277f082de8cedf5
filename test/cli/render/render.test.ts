import assert from 'node:assert/strict';
import test from 'node:test';
import { bar } from '../../../src/cli/render/bar.ts';
import { outcomeFacts, outcomeText } from '../../../src/cli/render/outcome.ts';
import { etaMs, fractionDone, progressLine } from '../../../src/cli/render/progress-line.ts';
import { formatBytes, formatDuration } from '../../../src/cli/render/quantity.ts';
import { pairs, table } from '../../../src/cli/render/table.ts';
import { PorcelainError, type Progress } from '../../../src/porcelain/index.ts';

test('bytes keep three significant digits', () => {
  const cases: [number, string][] = [
    [0, '0 B'],
    [999, '999 B'],
    [1000, '0.98 KiB'],
    [1536, '1.50 KiB'],
    [24 * 1024 ** 2, '24.0 MiB'],
    [999.4 * 1024 ** 2, '999 MiB'],
    [999.6 * 1024 ** 2, '0.98 GiB'],
    [512 * 1024 ** 3, '512 GiB'],
    [4000 * 1024 ** 5, '4000 PiB'],
  ];
  for (const [bytes, text] of cases) assert.equal(formatBytes(bytes), text);
});

test('durations from ms to hours, without a 60 in a place of sixtieths', () => {
  const cases: [number, string][] = [
    [0, '0 ms'],
    [999, '999 ms'],
    [999.7, '1.0 s'],
    [59_949, '59.9 s'],
    [59_960, '1:00 min'],
    [3_599_400, '59:59 min'],
    [3_599_600, '1:00:00 h'],
    [3_725_000, '1:02:05 h'],
  ];
  for (const [ms, text] of cases) assert.equal(formatDuration(ms), text);
});

test('the bar has its width whatever the fraction', () => {
  assert.equal(bar(0, 12), '[----------]');
  assert.equal(bar(0.5, 12), '[#####-----]');
  assert.equal(bar(1, 12), '[##########]');
  assert.equal(bar(-1, 12), bar(0, 12));
  assert.equal(bar(7, 12), bar(1, 12));
  assert.equal(bar(0.999, 12), '[#########-]', 'full only when it is');
});

const ACTIVE: Progress = {
  status: 'active',
  totalTimeMs: 1000,
  expectedDowntimeMs: 120,
  ram: {
    transferred: 600 * 1024 ** 2,
    remaining: 512 * 1024 ** 2,
    total: 1024 ** 3,
    mbps: 8192,
    'dirty-pages-rate': 51_200,
    'page-size': 4096,
    'dirty-sync-count': 3,
  },
};

test('a line of progress has bar, rate, remaining, ETA, dirty rate, expected downtime and round', () => {
  assert.equal(
    progressLine(ACTIVE),
    '[##########----------]  50 %  977 MiB/s  512 MiB left  ETA 659 ms  dirty 200 MiB/s  downtime ~120 ms  round 3',
  );
});

test('a narrow terminal gets the more interesting part of it', () => {
  for (let columns = 1; columns <= 130; columns++) {
    const line = progressLine(ACTIVE, columns);
    assert.ok(line.length <= columns && progressLine(ACTIVE).startsWith(line), `${columns}: ${line}`);
  }
  assert.match(progressLine(ACTIVE, 60), /left$/);
});

test('other states are named; a wait says for what', () => {
  assert.equal(progressLine({ status: 'setup', totalTimeMs: 0 }), 'setup');
  const waiting = { ...ACTIVE, status: 'pre-switchover', waitingFor: 'migrate-continue' };
  assert.match(progressLine(waiting), /waits for migrate-continue.*pre-switchover$/);
});

test('what two ends have settled is told, while it goes on and at the end', () => {
  const one = { name: 'multifd-channels', value: '3', source: '4', destination: '3' };
  const handshake = { settled: [one, { ...one, name: 'multifd', value: 'on' }], warnings: [] };
  assert.match(progressLine({ ...ACTIVE, handshake }), /round 3 {2}settled: multifd-channels 3, multifd on$/);
  assert.equal(progressLine({ ...ACTIVE, handshake: { settled: [], warnings: [] } }), progressLine(ACTIVE));
  const text = outcomeText({ status: 'completed', message: '', handshake });
  assert.match(text, /settled +multifd-channels 3 \(source 4, destination 3\)\n +settled +multifd on/);
});

test('ETA: remaining over the net rate; none that converges, none without a rate', () => {
  assert.equal(etaMs({ ...ACTIVE, ram: { ...ACTIVE.ram, mbps: 0 } }), undefined);
  assert.equal(etaMs({ ...ACTIVE, ram: { ...ACTIVE.ram, mbps: 800 } }), Number.POSITIVE_INFINITY);
  assert.equal(etaMs({ ...ACTIVE, ram: { remaining: 1e6, mbps: 8 } }), 1000);
});

test('a receiver knows no remaining: pages count', () => {
  const ram = { total: 4096 * 100, normal: 20, duplicate: 30 };
  assert.equal(fractionDone({ status: 'active', totalTimeMs: 0, ram }), 0.5);
  assert.equal(fractionDone({ status: 'active', totalTimeMs: 0 }), undefined);
});

test('pairs and tables align', () => {
  assert.equal(
    pairs([
      ['a', '1'],
      ['long', '2'],
    ]),
    '  a     1\n  long  2\n',
  );
  assert.equal(table(['n', 'size'], [['1', '10 MiB']]), '  n    size\n  -  ------\n  1  10 MiB\n');
});

test('an outcome as facts: the fault with its code, no undefined member', () => {
  const error = new PorcelainError(
    { code: 'PEER_SETTING', peer: 'a.sock', name: 'x' },
    'a.sock: no x',
    new Error('why'),
  );
  assert.deepEqual(outcomeFacts({ status: 'failed', error, message: 'Here.', source: 'running' }), {
    status: 'failed',
    source: 'running',
    error: { code: 'PEER_SETTING', peer: 'a.sock', name: 'x', message: 'a.sock: no x: why' },
    message: 'Here.',
  });
  assert.equal(
    outcomeText({ status: 'failed', error, message: 'The guest still runs on the source.' }),
    'failed: a.sock: no x: why\nThe guest still runs on the source.\n',
  );
});
