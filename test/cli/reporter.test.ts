import assert from 'node:assert/strict';
import test from 'node:test';
import { HumanReporter, JsonReporter } from '../../src/cli/reporter.ts';

function sink(members: { isTTY?: boolean; columns?: number } = {}) {
  const written: string[] = [];
  return { written, ...members, write: (text: string) => written.push(text) > 0 };
}

const active = (transferred: number) => ({
  status: 'active',
  totalTimeMs: 1,
  ram: { total: 100, remaining: 50, transferred },
});

test('a terminal gets one line, redrawn in its width and cleared before anything else', () => {
  const out = sink();
  const err = sink({ isTTY: true, columns: 20 });
  const reporter = new HumanReporter(out, err);
  reporter.progress(active(1));
  reporter.progress(active(2));
  reporter.event('listening', {}, 'listening at x');
  reporter.result({}, 'completed\n');
  for (const drawn of err.written.slice(0, 2)) {
    assert.ok(drawn.startsWith('\r\x1b[K'));
    assert.ok(drawn.length - 4 <= 19, 'the last column stays free');
  }
  assert.deepEqual(err.written.slice(2), ['\r\x1b[K', 'listening at x\n']);
  assert.deepEqual(out.written, ['completed\n']);
});

test('no terminal: a line for each status, not for each look', () => {
  const err = sink();
  const reporter = new HumanReporter(sink(), err);
  for (let i = 0; i < 50; i++) reporter.progress(active(i));
  reporter.progress({ status: 'completed', totalTimeMs: 2 });
  assert.equal(err.written.length, 2);
  assert.ok(err.written.every((line) => line.endsWith('\n') && !line.includes('\x1b')));
});

test('JSON Lines: every line an object with a type', () => {
  const out = sink();
  const reporter = new JsonReporter(out);
  reporter.progress(active(1));
  reporter.event('listening', { uri: 'tcp:127.0.0.1:1' });
  reporter.result({ status: 'completed', big: 12n });
  const lines = out.written.map((line) => JSON.parse(line) as { type: string });
  assert.deepEqual(
    lines.map(({ type }) => type),
    ['progress', 'listening', 'result'],
  );
  assert.ok(out.written.every((line) => line.indexOf('\n') === line.length - 1));
});
