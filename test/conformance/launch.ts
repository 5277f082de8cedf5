import type { Duplex } from 'node:stream';
import {
  beginMigration,
  type QemuProcess,
  QmpClient,
  type QmpMigrationInfo,
  type QmpMigrationStatus,
} from '../../src/qemu/index.ts';
import { migrateToSocket } from '../support/pass-socket.ts';
import { CLI_SOCKET_FD, type VmferryCommand } from '../support/vmferry-cli.ts';
import { type Landing, objects, settings } from './landing.ts';
import type { Scenario, Step } from './model.ts';
import { pausePostcopy, recoverInVain, recoverPostcopy, wakeGuest } from './recovery.ts';
import type { Stage } from './stage.ts';

/** How the sending side ended. */
export interface Departure {
  readonly status: 'completed' | 'failed' | 'cancelled';
  /** Why it did not complete, in the words of who said so. */
  readonly why: string;
  /** Of a QEMU source. */
  readonly info?: QmpMigrationInfo;
}

const STEP_TIMEOUT_MS = 60_000;
const ENDS: readonly QmpMigrationStatus[] = ['completed', 'failed', 'cancelled'];
const CONVERGE = { 'max-bandwidth': 0, 'downtime-limit': 30_000 };

/** The QEMU migrates by QMP commands of ours. */
export async function launchByQmp(source: QemuProcess, landing: Landing, scenario: Scenario): Promise<Departure> {
  await prepare(source, scenario);
  if (landing.uri !== undefined) await beginMigration(source.qmp, landing.uri);
  else if (landing.socket !== undefined) join(await migrateToSocket(source.qmpPath, 'migration'), landing.socket);
  const cancel = async () => {
    await source.qmp.execute('migrate_cancel');
  };
  await steer(scenario.steps ?? [], { qmp: source.qmp, landing, cancel });
  return departureOf(await source.qmp.waitForMigration(ENDS, { timeoutMs: STEP_TIMEOUT_MS }));
}

/** Capabilities and parameters of a scenario on a QEMU source. */
async function prepare(
  { qmp }: QemuProcess,
  { capabilities = [], bothParameters, parameters }: Scenario,
): Promise<void> {
  if (capabilities.length > 0) {
    await qmp.execute('migrate-set-capabilities', {
      capabilities: capabilities.map((capability) => ({ capability, state: true })),
    });
  }
  await qmp.execute('migrate-set-parameters', { ...CONVERGE, ...bothParameters, ...parameters });
}

/** Puts a source back to what it had when it was started. */
export async function unprepare({ qmp }: QemuProcess): Promise<void> {
  const known = await qmp.execute('query-migrate-capabilities');
  const capabilities = known
    .filter(({ capability, state }) => state && capability !== 'events')
    .map(({ capability }) => ({ capability, state: false }));
  if (capabilities.length > 0) await qmp.execute('migrate-set-capabilities', { capabilities });
  await qmp.execute('migrate-set-parameters', { ...CONVERGE, 'tls-creds': '' });
}

/** `vmferry migrate` drives the QEMU `source`; `to` are its arguments for the destination. */
export async function launchByMigrate(
  stage: Stage,
  source: QemuProcess,
  to: readonly string[],
  landing: Pick<Landing, 'signal'>,
  scenario: Scenario,
): Promise<Departure> {
  const parameters = {
    ...CONVERGE,
    ...scenario.bothParameters,
    ...scenario.parameters,
    ...scenario.destinationParameters,
  };
  const postcopy = scenario.capabilities?.includes('postcopy-ram') === true;
  const args = ['migrate', source.qmpPath, ...to, ...settings(scenario.capabilities ?? [], parameters)];
  const command = stage.vmferry([...args, ...(postcopy ? ['--postcopy=0'] : [])]);
  const { steps = [] } = scenario;
  // It goes over to postcopy by itself.
  const own = steps.slice(steps.findIndex((step) => 'act' in step && step.act === 'start-postcopy') + 1);
  await whileItRuns(command, steer(own, { qmp: source.qmp, landing, cancel: async () => command.kill('SIGINT') }));
  const departure = await departureOfCommand(command);
  return { ...departure, info: await source.qmp.execute('query-migrate') };
}

/** `vmferry send` of the checkpoint `file`. */
export async function launchBySend(
  stage: Stage,
  file: string,
  landing: Landing,
  scenario: Scenario,
): Promise<Departure> {
  const withSocket = landing.uri === undefined;
  const uri = landing.uri ?? `fd:${CLI_SOCKET_FD}`;
  const parameters = { ...scenario.bothParameters, ...scenario.parameters };
  const set = settings(['events', ...(scenario.capabilities ?? [])], parameters);
  const args = ['send', stage.path(file), uri, ...objects(stage.objects.source), ...set];
  const qmpPath = stage.path('send.sock');
  args.push('--qmp', qmpPath, ...(scenario.atOnce === true ? ['--postcopy'] : []));
  const command = stage.vmferry(args, { withSocket });
  if (command.socket !== undefined && landing.socket !== undefined) join(command.socket, landing.socket);
  if (scenario.steps !== undefined) await whileItRuns(command, steerSend(command, qmpPath, landing, scenario.steps));
  return departureOfCommand(command);
}

async function steerSend(
  command: VmferryCommand,
  qmpPath: string,
  landing: Landing,
  steps: readonly Step[],
): Promise<void> {
  const begun = (line: Record<string, unknown>) => (line['status'] !== 'none' ? line['status'] : undefined);
  await command.waitForLine(begun, 'a migration, and QMP with it');
  const qmp = await QmpClient.connect(qmpPath);
  try {
    await steer(steps, { qmp, landing, cancel: async () => command.kill('SIGINT') });
  } finally {
    qmp.close();
  }
}

interface Helm {
  /** Of the source. */
  readonly qmp: QmpClient;
  readonly landing: Pick<Landing, 'signal' | 'qmp' | 'again' | 'takesOver'>;
  readonly cancel: () => Promise<void>;
}

async function steer(steps: readonly Step[], helm: Helm): Promise<void> {
  for (const step of steps) await take(step, helm);
}

async function take(step: Step, { qmp, landing, cancel }: Helm): Promise<void> {
  if ('set' in step) return void (await qmp.execute('migrate-set-parameters', step.set));
  if ('wait' in step) return void (await qmp.waitForMigration([step.wait], { timeoutMs: STEP_TIMEOUT_MS }));
  if ('waitRounds' in step) {
    return under('rounds', qmp, ({ ram }) => (ram?.['dirty-sync-count'] ?? 0) >= step.waitRounds);
  }
  if ('waitDifferences' in step) return under('differences', qmp, (info) => (info['xbzrle-cache']?.pages ?? 0) > 0);
  if ('waitThrottle' in step) return under('throttle', qmp, (info) => (info['cpu-throttle-percentage'] ?? 0) > 0);
  switch (step.act) {
    case 'converge':
      return void (await qmp.execute('migrate-set-parameters', CONVERGE));
    case 'continue':
      return void (await qmp.execute('migrate-continue', { state: 'pre-switchover' }));
    case 'cancel':
      return cancel();
    case 'start-postcopy':
      return void (await qmp.execute('migrate-start-postcopy'));
    case 'pause':
      return pausePostcopy(qmp, landing);
    case 'recover':
      return recoverPostcopy(qmp, landing);
    case 'recover-in-vain':
      return recoverInVain(step.by, qmp, landing);
    case 'wake':
      return wakeGuest(landing);
    case 'freeze-destination':
      return landing.signal('SIGSTOP');
    case 'kill-destination':
      return landing.signal('SIGKILL');
  }
}

/** Waits until a migration that is active shows `seen`. */
async function under(what: string, qmp: QmpClient, seen: (info: QmpMigrationInfo) => boolean) {
  const done = new AbortController();
  const progress = (info: QmpMigrationInfo) => {
    if (seen(info)) done.abort();
  };
  const { signal } = done;
  try {
    const { status } = await qmp.waitForMigration(ENDS, { timeoutMs: STEP_TIMEOUT_MS, progress, signal });
    if (!signal.aborted) throw new Error(`${qmp.label}: migration is ${status} before its ${what} showed`);
  } catch (thrown) {
    if (!signal.aborted) throw thrown;
  }
}

/** A command that ends too soon says why, instead of the step that then never comes. */
async function whileItRuns(command: VmferryCommand, steps: Promise<void>): Promise<void> {
  const gone = command.ended.then(() => {
    throw new Error(`${command.name} ended before the steps: ${command.said}`);
  });
  gone.catch(() => {});
  await Promise.race([steps, gone]);
}

function join(a: Duplex, b: Duplex): void {
  for (const [from, to] of [
    [a, b],
    [b, a],
  ] as const) {
    from.on('error', () => to.destroy());
    from.pipe(to);
  }
}

function departureOf(info: QmpMigrationInfo): Departure {
  const status = info.status as Departure['status'];
  return { status, why: info['error-desc'] ?? '', info };
}

/** Throws if exit status and result line do not fit each other. */
export async function departureOfCommand(command: VmferryCommand): Promise<Departure> {
  const { exitStatus, result } = await command.ended;
  const expected = { completed: 0, failed: 1, cancelled: 130 };
  if (result === undefined || exitStatus !== expected[result.status]) {
    throw new Error(`${command.name} ended with exit status ${exitStatus}: ${command.said}`);
  }
  const why = result.error?.message ?? '';
  if (result.status === 'failed' && why === '') throw new Error(`${command.name} failed and does not say why`);
  return { status: result.status, why };
}
