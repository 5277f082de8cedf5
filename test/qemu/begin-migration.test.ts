/** A source whose last migration is not cleared away yet is waited for: asked too early it would never take another. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { beginMigration, type Commanded, QmpError } from '../../src/qemu/index.ts';

/** Has something left of its last migration, which ended as `status`, for so many questions. */
function source(status: string, times: number, answers = true): { readonly asked: string[]; readonly qmp: Commanded } {
  const asked: string[] = [];
  const execute = async (command: string) => {
    asked.push(command);
    if (command === 'query-migrate') return { status };
    if (command !== 'query-yank') return {};
    if (!answers) throw new QmpError('a', command, 'CommandNotFound', 'no such command');
    return [{ type: 'chardev' }, ...(times-- > 0 ? [{ type: 'migration' }] : [])];
  };
  return { asked, qmp: { execute } as unknown as Commanded };
}

const CASES: readonly [what: string, one: ReturnType<typeof source>, asked: readonly string[]][] = [
  ['nothing is left', source('failed', 0), ['query-yank', 'migrate']],
  [
    'waited for',
    source('failed', 2),
    ['query-yank', 'query-migrate', 'query-yank', 'query-migrate', 'query-yank', 'migrate'],
  ],
  ['one is under way: refused by the peer', source('active', 9), ['query-yank', 'query-migrate', 'migrate']],
  ['vmferry has no query-yank', source('failed', 9, false), ['query-yank', 'migrate']],
];

for (const [what, { asked, qmp }, expected] of CASES) {
  test(what, async () => {
    await beginMigration(qmp, 'tcp:a:1');
    assert.deepEqual(asked, expected);
  });
}
