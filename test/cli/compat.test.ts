/** A machine type restricts a process to its time; compat properties are switched by flag and over QMP, and show in the stream. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import test from 'node:test';
import { ask, SMALL, Spawned, startRun, temporaryFolder } from './spawned.ts';

interface Property {
  readonly property: string;
  readonly value: string;
}

test('a setting that the machine type does not know is refused by name', async (t) => {
  const qmp = join(await temporaryFolder(t), 'a');
  const set = ['--set', 'return-path=on', '--set', 'switchover-ack=on'];
  const refused = await new Spawned(t, ['run', '--json', '--qmp', qmp, '--machine', 'workload-7.2', ...set]).result(2);
  const { code, name } = refused['error'] as { code: string; name: string };
  assert.deepEqual([code, name], ['SETTINGS_UNSUPPORTED', 'switchover-ack']);
  await startRun(t, qmp, ...SMALL, '--machine', 'workload-8.1', ...set);
  const known = await ask<{ capability: string }[]>(qmp, 'query-migrate-capabilities');
  const names = known.map(({ capability }) => capability);
  assert.ok(names.includes('switchover-ack') && !names.includes('mapped-ram'), names.join(' '));
});

test('a compat property by flag, another over QMP: the stream has what they say', async (t) => {
  const folder = await temporaryFolder(t);
  const [qmp, stream] = [join(folder, 'a'), join(folder, 'stream')];
  const machine = ['--machine', 'workload-7.2', '--compat', 'zero-page-detection=multifd'];
  await startRun(t, qmp, ...SMALL, ...machine, '--set', 'max-bandwidth=0');
  const value = async (property: string) =>
    (await ask<Property[]>(qmp, 'x-query-compat')).find((one) => one.property === property)?.value;
  assert.equal(await value('zero-page-detection'), 'multifd');
  assert.equal(await value('send-switchover-start'), 'off');
  assert.equal(await hasSwitchoverStart(t, qmp, `${stream}.1`), false);
  await ask(qmp, 'x-set-compat', { property: 'send-switchover-start', value: 'on' });
  assert.equal(await value('send-switchover-start'), 'on');
  assert.equal(await hasSwitchoverStart(t, qmp, `${stream}.2`), true);
  await assert.rejects(ask(qmp, 'x-set-compat', { property: 'warp', value: 'on' }), /no compat property 'warp'/);
});

/** Whether the command is in a stream of the machine, which runs on after it. */
async function hasSwitchoverStart(t: Parameters<typeof startRun>[0], qmp: string, file: string): Promise<boolean> {
  await ask(qmp, 'cont');
  await new Spawned(t, ['migrate', qmp, `file:${file}`, '--json']).result(0);
  const inspect = new Spawned(t, ['inspect', file]);
  assert.equal(await inspect.exited, 0, inspect.stderr);
  return inspect.stdout.includes('SWITCHOVER_START');
}
