import assert from 'node:assert/strict';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import test from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { ask, SMALL, Spawned, startRun, TEMPORARY, temporaryFolder } from './spawned.ts';

const SLOW = ['--set', 'max-bandwidth=1M'];

/** Processes of this host whose command line holds all of `words`. */
async function processesWith(...words: string[]): Promise<string[]> {
  const found: string[] = [];
  for (const pid of (await readdir('/proc')).filter((name) => /^\d+$/.test(name))) {
    const line = await readFile(`/proc/${pid}/cmdline`, 'latin1').catch(() => '');
    if (words.every((word) => line.includes(word))) found.push(line);
  }
  return found;
}

async function gone(...words: string[]): Promise<void> {
  const deadline = performance.now() + 20_000;
  for (let left = await processesWith(...words); left.length > 0; left = await processesWith(...words)) {
    assert.ok(performance.now() < deadline, left.join('\n'));
    await pause(50);
  }
}

/** The folder of a demo, from the command line of its children. */
async function folderOf(vcpus: number): Promise<string> {
  const [line = ''] = await processesWith(TEMPORARY, 'vmferry-demo-', `--vcpus=${vcpus}`);
  return /vmferry-demo-\w+/.exec(line)?.[0] ?? assert.fail(`no child of the demo: ${line}`);
}

test('Ctrl-C in demo: cancelled in order, no process and no file is left', async (t) => {
  const demo = new Spawned(t, ['demo', '--json', '--ram', '16M', '--vcpus', '7', ...SLOW]);
  await demo.line(({ status }) => status === 'active');
  const folder = await folderOf(7);
  demo.kill('SIGINT');
  const result = await demo.result(130);
  assert.equal(result['status'], 'cancelled');
  assert.equal(result['source'], 'running');
  await gone(folder);
  assert.ok(!(await readdir(TEMPORARY)).includes(folder));
});

test('a demo that is killed takes its processes along', async (t) => {
  const demo = new Spawned(t, ['demo', '--json', '--ram', '16M', '--vcpus', '5', ...SLOW]);
  await demo.line(({ status }) => status === 'active');
  const folder = await folderOf(5);
  demo.kill('SIGKILL');
  await demo.exited;
  await gone(folder);
});

test('a second Ctrl-C ends at once, whatever the first waits for', async (t) => {
  const folder = await temporaryFolder(t);
  const [a, b] = [join(folder, 'a'), join(folder, 'b')];
  const source = await startRun(t, a, ...SMALL);
  await startRun(t, b, ...SMALL, '--incoming', 'defer');
  const migrate = new Spawned(t, ['migrate', a, b, '--json', ...SLOW]);
  await migrate.line(({ status }) => status === 'active');
  source.kill('SIGSTOP');
  migrate.kill('SIGINT');
  await migrate.line('interrupted');
  migrate.kill('SIGINT');
  assert.equal(await migrate.exited, 130);
  source.kill('SIGCONT');
  assert.equal((await ask(a, 'query-status'))['status'], 'running');
});

test('an interrupt that comes before anything has begun ends a receive', async (t) => {
  const folder = await temporaryFolder(t);
  const receive = new Spawned(t, ['receive', 'tcp:127.0.0.1:0', '--to', join(folder, 'vm.ckpt'), '--json']);
  await receive.line('listening');
  receive.kill('SIGTERM');
  assert.equal((await receive.result(130))['status'], 'cancelled');
  assert.deepEqual(await readdir(folder), []);
});
