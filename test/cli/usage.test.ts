import assert from 'node:assert/strict';
import test from 'node:test';
import { CommanderError } from 'commander';
import { buildProgram } from '../../src/cli/program.ts';
import { Spawned } from './spawned.ts';

const COMMANDS = [
  ...['demo', 'save', 'restore', 'migrate', 'check', 'inspect', 'run', 'receive', 'send'],
  ...['device-server', 'device-move'],
];

test('every command of the issue is there, and its help has examples that parse', async () => {
  assert.deepEqual(
    buildProgram().commands.map((command) => command.name()),
    COMMANDS,
  );
  for (const name of COMMANDS) {
    let help = '';
    const command = buildProgram().commands.find((one) => one.name() === name);
    command?.configureOutput({ writeOut: (text) => (help += text) }).outputHelp();
    const examples = [...help.matchAll(/^ {2}\$ vmferry (.*)$/gm)].map((match) => match[1] ?? '');
    assert.ok(examples.length > 0, `${name} has no examples`);
    for (const example of examples) await parses(example);
  }
});

/** Parses a command line without doing it. */
async function parses(example: string): Promise<void> {
  const words = [
    ...example
      .replace(/\s#.*$/, '')
      .replace(/\s\|.*$/, '')
      .matchAll(/'([^']*)'|(\S+)/g),
  ];
  const args = words.map(([, quoted, bare]) => quoted ?? bare ?? '');
  const program = buildProgram();
  for (const command of program.commands) command.action(() => {});
  await assert.doesNotReject(program.parseAsync(args, { from: 'user' }), example);
}

const WRONG: readonly (readonly string[])[] = [
  [],
  ['fly'],
  ['run'],
  ['run', '--qmp', 'x', '--ram', 'much'],
  ['run', '--qmp', 'x', '--pattern', 'zigzag'],
  ['run', '--qmp', 'x', '--machine', 'pc-q35-7.2'],
  ['run', '--qmp', 'x', '--incoming', 'pigeon:home'],
  ['run', '--qmp', 'x', '--uuid', '1234'],
  ['run', '--qmp', 'x', '--set', 'max-bandwidth'],
  ['run', '--qmp', 'x', '--set', 'warp=9'],
  ['run', '--qmp', 'x', '--set', 'downtime-limit=soon'],
  ['receive', 'tcp:127.0.0.1:0'],
  ['receive', 'tcp:nowhere', '--to', 'x'],
  ['send', 'file'],
  ['migrate', 'a.sock'],
  ['check', 'a.sock'],
  ['migrate', 'a.sock', 'tcp:127.0.0.1:1', '--uri', 'tcp:127.0.0.1:0'],
  ['save', 'a.sock'],
  ['restore', 'file'],
  ['demo', '--fast'],
  ['device-server'],
  ['device-server', '--socket', 'x', '--device', 'nic'],
  ['device-move', 'a.sock'],
  ['device-move', 'a.sock', 'b.sock', '--downtime-limit', 'none'],
];

test('usage errors are told with a hint, before anything is done', async () => {
  for (const args of WRONG) {
    let told = '';
    const program = buildProgram();
    for (const command of [program, ...program.commands]) {
      command.configureOutput({ writeErr: (text) => (told += text), writeOut: () => {} });
      if (command !== program && command.name() !== 'migrate') command.action(() => {});
    }
    await assert.rejects(program.parseAsync(args, { from: 'user' }), CommanderError, args.join(' '));
    assert.notEqual(told, '', args.join(' '));
  }
});

test('a usage error ends with 2', async (t) => {
  const cli = new Spawned(t, ['run', '--qmp', 'x', '--set', 'warp=9']);
  assert.equal(await cli.exited, 2);
  assert.match(cli.stderr, /no capability or parameter 'warp'/);
  assert.equal(cli.stdout, '');
});

test('what only the engine can judge is a usage error too', async (t) => {
  const ram = new Spawned(t, ['run', '--json', '--qmp', '/nonexistent/x', '--ram', '5000']);
  assert.deepEqual((await ram.result(2))['error'], {
    code: 'WORKLOAD_OPTION',
    option: 'ram',
    found: '5000',
    message: 'ram must be 1 MiB to 1 TiB in whole pages of 4096 bytes, not 5000',
  });
  const set = new Spawned(t, ['run', '--json', '--qmp', '/nonexistent/x', '--set', 'rdma-pin-all=on']);
  assert.equal(((await set.result(2))['error'] as { code: string }).code, 'SETTINGS_UNSUPPORTED');
});

test('help and version end with 0', async (t) => {
  for (const args of [['--help'], ['help', 'save'], ['migrate', '-h'], ['--version']]) {
    const cli = new Spawned(t, args);
    assert.equal(await cli.exited, 0);
    assert.notEqual(cli.stdout, '');
  }
});
