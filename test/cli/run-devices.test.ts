/** `run` with devices: what --vf, --device and --vf-fault make, and what they refuse. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import test from 'node:test';
import { CommanderError } from 'commander';
import { buildProgram } from '../../src/cli/program.ts';
import { ask, SMALL, Spawned, startRun, temporaryFolder } from './spawned.ts';

interface Device {
  readonly name: string;
  readonly section: string;
  readonly state: string;
  readonly precopy: boolean;
  readonly p2p: boolean;
  readonly 'state-size': number;
  readonly resets: number;
}

const MIB = 1024 * 1024;
const TINY = 'state-size=1M,working-set=256K,state-rate=2M,dma-size=1M,dma-rate=1M';

test('devices come into slots in their order: those of --vf, then each --device, with what they were given', async (t) => {
  const folder = await temporaryFolder(t);
  const socket = join(folder, 'device');
  await new Spawned(t, ['device-server', '--socket', socket, '--device', `vf,${TINY}`, '--json']).line('ready');
  const qmp = join(folder, 'qmp');
  await startRun(
    t,
    qmp,
    ...SMALL,
    ...['--vf', `2,${TINY},p2p=off`],
    ...['--device', `vfio-user,socket=${socket},dma-size=1M`],
    ...['--device', `vf,preset=small,${TINY},precopy=off,state-size=2M`],
  );
  const devices = await ask<readonly Device[]>(qmp, 'x-query-devices');
  assert.deepEqual(
    devices.map(({ name, section, state, precopy, p2p, resets }) => [name, section, state, precopy, p2p, resets]),
    [
      ['vf0', '0000:00:04.0/vfio', 'RUNNING', true, false, 0],
      ['vf1', '0000:00:05.0/vfio', 'RUNNING', true, false, 0],
      [socket, '0000:00:06.0/vfio', 'RUNNING', true, true, 0],
      ['vf2', '0000:00:07.0/vfio', 'RUNNING', false, true, 0],
    ],
  );
  // A stream is a little more than the state.
  const sizes = devices.map((device) => Math.floor(device['state-size'] / MIB));
  assert.deepEqual(sizes, [1, 1, 1, 2]);
});

test('a fault of a VF fails the migration, which names it; the guest runs on, and the next try goes well', async (t) => {
  const folder = await temporaryFolder(t);
  const a = join(folder, 'a');
  const vfs = ['--vf', `1,${TINY}`, '--device', `vf,${TINY},seed=9`];
  await startRun(t, a, ...SMALL, ...vfs, '--vf-fault', 'vf1 save config:fail,errno=EBUSY');
  await ask(a, 'migrate-set-parameters', { 'avail-switchover-bandwidth': 1_000_000_000 });
  // A process whose incoming migration fails ends with it.
  const destination = async (name: string, ...faults: string[]) => {
    const qmp = join(folder, name);
    await startRun(t, qmp, ...SMALL, ...vfs, '--incoming', 'defer', ...faults);
    return qmp;
  };
  const tries: readonly [says: RegExp, ...faults: string[]][] = [
    [/vf1: save config: the device refused \(EBUSY\)/],
    [/vf0: load config: the device failed \(EIO\)/, '--vf-fault', 'vf0 load config:break'],
  ];
  for (const [i, [says, ...faults]] of tries.entries()) {
    const there = await destination(`b${i}`, ...faults);
    const { error } = await new Spawned(t, ['migrate', a, there, '--json']).result(1);
    assert.match(String((error as { message: string }).message), says);
    assert.equal((await ask<{ status: string }>(a, 'query-status')).status, 'running');
    const devices = await ask<readonly Device[]>(a, 'x-query-devices');
    assert.deepEqual(
      devices.map(({ state, resets }) => [state, resets]),
      [
        ['RUNNING', 0],
        ['RUNNING', 0],
      ],
    );
  }
  const b = await destination('b');
  assert.equal((await new Spawned(t, ['migrate', a, b, '--json']).result(0))['status'], 'completed');
  await ask(b, 'stop');
  assert.deepEqual((await ask<{ details: readonly string[] }>(b, 'x-workload-verify')).details, []);
});

test('a machine with devices does not become a postcopy, and says which device it is', async (t) => {
  const folder = await temporaryFolder(t);
  const [a, b] = [join(folder, 'a'), join(folder, 'b')];
  const vfs = ['--vf', `1,${TINY}`];
  await Promise.all([startRun(t, a, ...SMALL, ...vfs), startRun(t, b, ...SMALL, ...vfs, '--incoming', 'defer')]);
  const postcopy = { capabilities: [{ capability: 'postcopy-ram', state: true }] };
  for (const qmp of [a, b]) await ask(qmp, 'migrate-set-capabilities', postcopy);
  const { error } = await new Spawned(t, ['migrate', a, b, '--json']).result(1);
  assert.match(String((error as { message: string }).message), /postcopy-ram with device 0000:00:04\.0\/vfio/);
  assert.equal((await ask<{ status: string }>(a, 'query-status')).status, 'running');
});

test('a VF that does not open ends the process before it is ready, and is named', async (t) => {
  const folder = await temporaryFolder(t);
  const fault = ['--vf-fault', 'vf1 open:fail,errno=ENODEV'];
  const run = new Spawned(t, ['run', '--json', '--qmp', join(folder, 'qmp'), ...SMALL, '--vf', `2,${TINY}`, ...fault]);
  const { error } = await run.result(1);
  assert.match((error as { message: string }).message, /vf1: open: the device refused \(ENODEV\)/);
  assert.deepEqual(
    run.lines.map(({ type }) => type),
    ['result'],
  );
});

const REFUSED: readonly [args: readonly string[], says: RegExp][] = [
  [['--vf', 'two'], /A number of VFs is wanted, not 'two'/],
  [['--vf', '125'], /slots for 124 devices/],
  [['--vf', '1,colour=red'], /A vf has preset and: state-size/],
  [['--vf', '1,preset=huge'], /A preset is one of: small/],
  [['--vf', '1,state-size=5000'], /state-size cannot be 5000/],
  [['--vf', '1,p2p=maybe'], /p2p is on or off/],
  [['--device', 'nic'], /A device is one of: vf, vfio-user/],
  [['--device', 'vfio-user'], /vfio-user has socket=PATH/],
  [['--device', 'vfio-user,socket=/x,dma-size=100'], /dma-size wants whole pages/],
  [['--vf', '2', '--vf-fault', 'vf2 reset:fail'], /'vf2 reset:fail' begins with none of the machine's VFs .*it has 2/],
  [['--vf', '1', '--vf-fault', 'reset:fail'], /begins with none of the machine's VFs/],
  [['--vf', '1', '--vf-fault', 'vf0 reset:explode'], /"reset:explode" is not POINT:KIND/],
];

test('devices and faults that cannot be are usage errors, before anything is done', async () => {
  for (const [args, says] of REFUSED) {
    let told = '';
    const program = buildProgram();
    const run = program.commands.find((command) => command.name() === 'run')!;
    run.configureOutput({ writeErr: (text) => (told += text) }).action(() => assert.fail('it began'));
    const parsing = program.parseAsync(['run', '--qmp', 'x', ...args], { from: 'user' });
    await assert.rejects(parsing, CommanderError, args.join(' '));
    assert.match(told, says, args.join(' '));
  }
});
