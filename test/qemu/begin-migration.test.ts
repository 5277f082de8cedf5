/** A source whose last migration is not cleared away yet is asked again; whatever else it refuses is refused. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { beginMigration, QmpError } from '../../src/qemu/index.ts';

/** Refuses so often. */
function source(times: number, desc: string) {
  const asked: string[] = [];
  return {
    asked,
    async execute(command: string, { uri }: { readonly uri: string }) {
      asked.push(`${command} ${uri}`);
      if (asked.length <= times) throw new QmpError('a', command, 'GenericError', desc);
    },
  };
}

test('asked again until the last migration is cleared away', async () => {
  const one = source(3, 'duplicate yank instance');
  await beginMigration(one, 'tcp:a:1');
  assert.deepEqual(one.asked, Array(4).fill('migrate tcp:a:1'));
});

test('any other refusal counts', async () => {
  const one = source(1, 'There is a migration process in progress');
  await assert.rejects(beginMigration(one, 'tcp:a:1'), /migration process in progress/);
  assert.equal(one.asked.length, 1);
});
