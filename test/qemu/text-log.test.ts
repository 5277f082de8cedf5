import assert from 'node:assert/strict';
import test from 'node:test';
import { FerryError } from '../../src/base/index.ts';
import { TextLog } from '../../src/qemu/index.ts';

const has = (wanted: string) => (text: string) => (text.includes(wanted) ? text.length : undefined);

test('a log is searched as a whole, for what is there and for what comes', async () => {
  const log = new TextLog();
  log.append('ab');
  assert.equal(await log.waitFor(has('b'), 'b', 1000), 2);
  const later = log.waitFor(has('bcd'), 'bcd', 5000);
  log.append('c');
  log.append('d');
  assert.equal(await later, 4);
});

test('a wait ends with the log, with what the search throws, and at its deadline', async () => {
  const log = new TextLog();
  const reason = new Error('gone');
  const waiting = assert.rejects(log.waitFor(has('x'), 'x', 5000), reason);
  const broken = assert.rejects(
    log.waitFor((text) => (text === '' ? undefined : assert.fail('bad text')), 'text', 5000),
    /bad text/,
  );
  await assert.rejects(
    log.waitFor(has('x'), 'an x', 5),
    (error) => error instanceof FerryError && error.code === 'QMP_TIMEOUT' && error.message.includes('an x'),
  );
  log.append('y');
  log.end(reason);
  await Promise.all([waiting, broken]);
  await assert.rejects(log.waitFor(has('x'), 'x', 5000), reason);
  assert.equal(await log.waitFor(has('y'), 'y', 5000), 1);
});
