import assert from 'node:assert/strict';
import test from 'node:test';
import { Console } from '../../../src/machine/workload/console.ts';
import { CONSOLE_BYTES } from '../../../src/machine/workload/devices.ts';

test('the console keeps the end of what was written, and knows what was read, also after a move', () => {
  const console = new Console();
  console.writeLine('one');
  assert.equal(console.read(), 'one\n');
  for (let i = 0; i < 300; i++) console.writeLine(`line ${i}`);
  const moved = new Console();
  moved.load(console.save());
  for (const one of [console, moved]) {
    const text = one.read();
    assert.equal(text.length, CONSOLE_BYTES);
    assert.ok(text.endsWith('line 298\nline 299\n'));
    assert.equal(one.read(), '');
  }
  assert.equal(moved.save().lines, 301);
});

test('a console that has more unread than written cannot be', () => {
  const state = new Console().save();
  assert.equal(Console.wrongField(state), undefined);
  assert.equal(Console.wrongField({ ...state, unread: { unread: 1 } }), 'unread');
  assert.equal(Console.wrongField({ ...state, written: 5000n, unread: { unread: CONSOLE_BYTES + 1 } }), 'unread');
  assert.equal(Console.wrongField({ ...state, written: 2n ** 60n }), 'written');
});
