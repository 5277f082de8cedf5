import assert from 'node:assert/strict';
import test from 'node:test';
import { GONE, UNKNOWN } from '../../src/porcelain/index.ts';
import { judge, type Verdict } from '../../src/porcelain/settle.ts';

const SOURCES = ['running', 'suspended', 'paused', 'postmigrate', 'finish-migrate', 'io-error', GONE, UNKNOWN];
const DESTINATIONS = ['running', 'suspended', 'paused', 'inmigrate', GONE, UNKNOWN, undefined];

test('every pair of states has the verdict of this table', () => {
  const table: Record<string, Verdict[]> = {
    //                running    suspended   paused     inmigrate    gone         unknown  cannot be asked
    running: ['both-run', 'both-run', 'stays', 'stays', 'stays', 'stays', 'stays'],
    suspended: ['both-run', 'both-run', 'stays', 'stays', 'stays', 'stays', 'stays'],
    paused: ['arrived', 'arrived', 'stays', 'stays', 'stays', 'stays', 'stays'],
    postmigrate: ['arrived', 'arrived', 'arrived', 'take-back', 'take-back', 'open', 'open'],
    'finish-migrate': ['arrived', 'arrived', 'arrived', 'take-back', 'take-back', 'open', 'open'],
    'io-error': ['arrived', 'arrived', 'stays', 'stays', 'stays', 'stays', 'stays'],
    [GONE]: ['arrived', 'arrived', 'arrived', 'lost', 'lost', 'open', 'open'],
    [UNKNOWN]: ['arrived', 'arrived', 'arrived', 'open', 'open', 'open', 'open'],
  };
  for (const source of SOURCES) {
    DESTINATIONS.forEach((destination, index) => {
      assert.equal(judge(source, destination), table[source]?.[index], `source ${source}, destination ${destination}`);
    });
  }
});

test('the guest is never taken back unless it provably runs nowhere else', () => {
  for (const source of SOURCES) {
    for (const destination of DESTINATIONS) {
      if (judge(source, destination) !== 'take-back') continue;
      assert.ok(source === 'postmigrate' || source === 'finish-migrate');
      assert.ok(destination === 'inmigrate' || destination === GONE);
    }
  }
});
