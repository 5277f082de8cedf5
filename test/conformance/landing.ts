import { execFile } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import type { Duplex } from 'node:stream';
import { promisify } from 'node:util';
import { type QemuProcess, QmpClient } from '../../src/qemu/index.ts';
import { CLI_SOCKET_FD } from '../support/vmferry-cli.ts';
import type { ObjectArguments, Scenario, Transport } from './model.ts';
import { guestTakesOver } from './recovery.ts';
import type { Stage } from './stage.ts';

/** Where a migration goes to. */
export interface Landing {
  /** For the source; `socket` instead with transport fd. */
  readonly uri?: string;
  readonly socket?: Duplex;
  /** Resolves when the machine is there, rejects if it will never be. */
  arrived(): Promise<void>;
  /** To the process at the destination. */
  signal(name: NodeJS.Signals): void;
  /** Resolves when the guest is the destination's, and a postcopy can be paused: a source says postcopy-active before that. */
  takesOver?(source: QmpClient): Promise<void>;
  /** Has the destination of a paused postcopy listen for another connection; where. */
  again?(): Promise<string>;
  /** Of the destination, if there is one to talk to. */
  readonly qmp?: QmpClient;
}

/** Bytes in front of the stream with transport file-offset. */
export const OFFSET = 4096;

const NO_PROCESS = { arrived: async () => {}, signal: () => {} };

/** A QEMU that listens. With transport file, `file` or the scenario's, it is told when the file is there: by `arrived`. */
export async function landInQemu(stage: Stage, qemu: QemuProcess, scenario: Scenario, file?: string): Promise<Landing> {
  const capabilities = (scenario.capabilities ?? []).map((capability) => ({ capability, state: true }));
  if (capabilities.length > 0) await qemu.qmp.execute('migrate-set-capabilities', { capabilities });
  const parameters = { ...scenario.bothParameters, ...scenario.destinationParameters };
  if (Object.keys(parameters).length > 0) await qemu.qmp.execute('migrate-set-parameters', parameters);
  const arrived = async () => {
    await qemu.qmp.waitForMigration(['completed'], { timeoutMs: 60_000 });
  };
  const signal = (name: NodeJS.Signals) => qemu.kill(name);
  const { transport } = scenario;
  if (transport === 'fd') return { ...one(qemu.sockets[0]), arrived, signal };
  const place = await address(stage, transport);
  const path = file ?? place.file;
  if (path !== undefined) {
    const load = async () => {
      await qemu.qmp.execute('migrate-incoming', { uri: path });
      await arrived();
    };
    return { uri: path, arrived: load, signal };
  }
  const { qmp } = qemu;
  const uri = await listenBy(qmp, 'migrate-incoming', place);
  const takesOver = (source: QmpClient) => guestTakesOver(qmp, source);
  return { uri, arrived, signal, qmp, takesOver, again: () => listenBy(qmp, 'migrate-recover', place) };
}

async function listenBy(qmp: QmpClient, command: 'migrate-incoming' | 'migrate-recover', place: Place) {
  await qmp.execute(command, { uri: place.listen });
  const { 'socket-address': listening } = await qmp.execute('query-migrate');
  // A QEMU that has listened before adds the new address to the old.
  const inet = listening?.findLast((one) => one.type === 'inet');
  return place.connect(inet?.port ?? '0');
}

/** `vmferry receive` into the checkpoint `file`. */
export async function landInCheckpoint(stage: Stage, file: string, scenario: Scenario): Promise<Landing> {
  const { transport } = scenario;
  const place = await address(stage, transport);
  const listen = transport === 'fd' ? `fd:${CLI_SOCKET_FD}` : (place.file ?? place.listen);
  const parameters = { ...scenario.bothParameters, ...scenario.destinationParameters };
  const declared = scenario.tls === undefined ? [] : objects(stage.objects.destination);
  const set = settings(scenario.capabilities ?? [], parameters);
  const args = ['receive', listen, '--to', stage.path(file), ...declared, ...set];
  if (place.file !== undefined) {
    const arrived = async () => {
      await stage.vmferry(args).completed();
    };
    return { ...NO_PROCESS, uri: place.file, arrived };
  }
  const qmpPath = stage.path('receive.sock');
  const command = stage.vmferry([...args, '--qmp', qmpPath], { withSocket: transport === 'fd' });
  const arrived = async () => {
    await command.completed();
  };
  const signal = (name: NodeJS.Signals) => command.kill(name);
  if (transport === 'fd') return { ...one(command.socket), arrived, signal };
  const text = await command.waitForLine(
    (line) => (line['type'] === 'listening' ? String(line['uri']) : undefined),
    'the line that says where it listens',
  );
  const uri = place.connect(/:(\d+)$/.exec(text)?.[1] ?? '0');
  if (scenario.capabilities?.includes('postcopy-ram') !== true) return { uri, arrived, signal };
  // It ends with the process.
  const qmp = await QmpClient.connect(qmpPath);
  const takesOver = async () => void (await qmp.waitForMigration(['postcopy-active'], { timeoutMs: 60_000 }));
  return { uri, arrived, signal, qmp, takesOver, again: () => listenBy(qmp, 'migrate-recover', place) };
}

/** A file alone: nobody there that would take it now. */
export async function landInFile(stage: Stage, scenario: Scenario): Promise<Landing> {
  const { file } = await address(stage, scenario.transport);
  if (file === undefined) throw new Error(`${scenario.transport} is no file`);
  return { ...NO_PROCESS, uri: file };
}

/** An address at which nobody is. */
export async function landNowhere(stage: Stage, { transport }: Scenario): Promise<Landing> {
  if (transport === 'unix') return { ...NO_PROCESS, uri: `unix:${stage.path('no-such-socket')}` };
  const server = createServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  const bound = server.address();
  await new Promise((resolve) => server.close(resolve));
  return { ...NO_PROCESS, uri: `tcp:127.0.0.1:${typeof bound === 'object' ? bound?.port : 0}` };
}

/** `--set NAME=on` for each capability, `--set NAME=VALUE` for each parameter. */
export function settings(capabilities: readonly string[], parameters: Scenario['parameters'] = {}): string[] {
  const values = [...capabilities.map((name) => [name, 'on']), ...Object.entries(parameters)];
  return values.flatMap(([name, value]) => ['--set', `${name}=${value}`]);
}

/** `--object` for each. */
export function objects(declared: readonly ObjectArguments[]): string[] {
  return declared.flatMap(({ 'qom-type': kind, ...properties }) => [
    '--object',
    [kind, ...Object.entries(properties).map(([name, value]) => `${name}=${value}`)].join(','),
  ]);
}

function one(socket: Duplex | undefined): { socket: Duplex } {
  if (socket === undefined) throw new Error('no socket to hand over');
  return { socket };
}

interface Place {
  readonly listen: string;
  readonly connect: (port: string) => string;
  readonly file?: string;
}

async function address(stage: Stage, transport: Transport): Promise<Place> {
  switch (transport) {
    case 'tcp':
      return { listen: 'tcp:127.0.0.1:0', connect: (port) => `tcp:127.0.0.1:${port}` };
    case 'tcp6':
      return { listen: 'tcp:[::1]:0', connect: (port) => `tcp:[::1]:${port}` };
    case 'unix': {
      const uri = `unix:${stage.path('migration.sock')}`;
      return { listen: uri, connect: () => uri };
    }
    case 'exec': {
      const fifo = stage.path('fifo');
      await promisify(execFile)('mkfifo', [fifo]);
      return { listen: `exec:cat ${fifo}`, connect: () => `exec:cat > ${fifo}` };
    }
    case 'fd':
      return { listen: '', connect: () => '' };
    case 'file': {
      const uri = `file:${stage.path('stream')}`;
      return { listen: uri, connect: () => uri, file: uri };
    }
    case 'file-offset': {
      await writeFile(stage.path('stream'), Buffer.alloc(OFFSET, 'kept'));
      const uri = `file:${stage.path('stream')},offset=${OFFSET}`;
      return { listen: uri, connect: () => uri, file: uri };
    }
  }
}
