/**
 * Plays one cell. Whatever the scenario, in the end the guest must have been seen to work on in exactly one place: in B if the migration
 * completes; if not, in A (or as the checkpoint), from where a plain move must then still succeed.
 */
import assert from 'node:assert/strict';
import { readdir, readFile } from 'node:fs/promises';
import type { QemuProcess } from '../../src/qemu/index.ts';
import { type Landing, landInCheckpoint, landInFile, landInQemu, landNowhere, OFFSET, settings } from './landing.ts';
import { type Departure, departureOfCommand, launchByMigrate, launchByQmp, launchBySend, unprepare } from './launch.ts';
import { type Cell, type Role, type Scenario, stateAfter, stateBefore } from './model.ts';
import { Stage } from './stage.ts';

const CELL_TIMEOUT_MS = 300_000;
const CHECKPOINT = 'vm.ckpt';
const PLAIN: Scenario = { id: 'plain', title: '', roles: [], transport: 'unix', ends: 'completed' };

/** Throws what is wrong. Leaves nothing behind, however it ends. */
export async function playCell(cell: Cell): Promise<void> {
  const stage = await Stage.open(cell);
  let timer: NodeJS.Timeout | undefined;
  const deadline = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not done after ${CELL_TIMEOUT_MS / 1000} s`)), CELL_TIMEOUT_MS);
  });
  const play = cell.role === 'source' ? fromCheckpoint(stage) : fromQemu(stage, WAYS[cell.role]);
  // Once the deadline has passed, what it still throws is only its processes being ended.
  play.catch(() => {});
  try {
    await Promise.race([play, deadline]);
  } finally {
    clearTimeout(timer);
    await stage.end();
  }
}

/** One try to move the guest out of A. */
interface Move {
  readonly departure: Departure;
  /** After a completed departure: sees it home and returns B. */
  arrive(): Promise<QemuProcess>;
  /** After one that did not complete: sees that nothing of it is anywhere. */
  vanish(): Promise<void>;
}

type Way = (stage: Stage, a: QemuProcess, scenario: Scenario) => Promise<Move>;

const WAYS: Record<Exclude<Role, 'source'>, Way> = {
  async reference(stage, a, scenario) {
    if (scenario.nobodyThere === true)
      return intoNothing(await launchByQmp(a, await landNowhere(stage, scenario), scenario));
    const b = await stage.startDestination(scenario.transport === 'fd' ? 'socket' : 'defer');
    const landing = await landInQemu(stage, b, scenario);
    const departure = await launchByQmp(a, landing, scenario);
    return { departure, ...ofQemu(b, landing) };
  },

  async migrate(stage, a, scenario) {
    if (scenario.nobodyThere === true) {
      const { uri = '' } = await landNowhere(stage, scenario);
      return intoNothing(await launchByMigrate(stage, a, [uri], NOBODY, scenario));
    }
    const b = await stage.startDestination();
    const listen = { tcp: ['--uri', 'tcp:127.0.0.1:0'], tcp6: ['--uri', 'tcp:[::1]:0'] }[scenario.transport as string];
    const to = [b.qmpPath, ...(listen ?? [])];
    const landing: Landing = { arrived: async () => {}, signal: (name) => b.kill(name) };
    const departure = await launchByMigrate(stage, a, to, landing, scenario);
    // What `vmferry migrate` calls completed has arrived; what it calls failed it has ended.
    return { departure, arrive: async () => b, vanish: () => expectNoGuest(b) };
  },

  async destination(stage, a, scenario) {
    if (scenario.capabilities?.includes('mapped-ram') === true) {
      const departure = await launchByQmp(a, await landInFile(stage, scenario), scenario);
      const again = { ...PLAIN, ...(scenario.atOnce && { atOnce: true as const }) };
      return { departure, arrive: () => restore(stage, 'stream', again), vanish: async () => {} };
    }
    const landing = await landInCheckpoint(stage, CHECKPOINT, scenario);
    const departure = await launchByQmp(a, landing, scenario);
    return {
      departure,
      async arrive() {
        await landing.arrived();
        return restore(stage, CHECKPOINT, PLAIN);
      },
      async vanish() {
        // Whoever is refused leaves the place to the next who comes.
        if (scenario.tls !== undefined) landing.signal('SIGINT');
        await assert.rejects(landing.arrived(), 'vmferry receive must not succeed');
        await expectNoCheckpoint(stage);
      },
    };
  },

  async 'save-restore'(stage, a, scenario) {
    const departure = await save(stage, a, scenario);
    const info = await a.qmp.execute('query-migrate');
    const arrive = () => restore(stage, CHECKPOINT, scenario);
    return { departure: { ...departure, info }, arrive, vanish: () => expectNoCheckpoint(stage) };
  },
};

async function fromQemu(stage: Stage, way: Way): Promise<void> {
  const { scenario } = stage.cell;
  const a = await stage.startSource();
  const move = await way(stage, a, scenario);
  expectEnd(scenario, move.departure);
  if (scenario.ends === 'completed') {
    scenario.proof?.(move.departure.info ?? {});
    return worksIn(stage, [a, await move.arrive()]);
  }
  await move.vanish();
  await staysIn(stage, a);
  await unprepare(a);
  const next = scenario.again === true ? { ...PLAIN, ...pickSettings(scenario) } : PLAIN;
  const second = await way(stage, a, next);
  expectEnd(next, second.departure);
  await worksIn(stage, [a, await second.arrive()]);
}

/** Role source: a checkpoint is what is sent; a failure must leave it as it was. */
async function fromCheckpoint(stage: Stage): Promise<void> {
  const { scenario } = stage.cell;
  const a = await stage.startSource();
  // Only what the file itself must hold.
  const kept = scenario.capabilities?.filter((name) => name === 'validate-uuid') ?? [];
  expectEnd(PLAIN, await save(stage, a, { ...PLAIN, capabilities: kept }));
  const b = await stage.startDestination(scenario.transport === 'fd' ? 'socket' : 'defer');
  if (scenario.capabilities?.includes('mapped-ram') === true) {
    const landing = await landInQemu(stage, b, scenario, `file:${stage.path(CHECKPOINT)}`);
    await landing.arrived();
    return worksIn(stage, [a, b]);
  }
  const before = await readFile(stage.path(CHECKPOINT));
  const nobodyThere = scenario.nobodyThere === true;
  const landing = nobodyThere ? await landNowhere(stage, scenario) : await landInQemu(stage, b, scenario);
  expectEnd(scenario, await launchBySend(stage, CHECKPOINT, landing, scenario));
  if (scenario.ends === 'completed') {
    await landing.arrived();
    return worksIn(stage, [a, b]);
  }
  if (!nobodyThere) await ofQemu(b, landing).vanish();
  assert(before.equals(await readFile(stage.path(CHECKPOINT))), 'the checkpoint was changed');
  await worksIn(stage, [a, await restore(stage, CHECKPOINT, PLAIN)]);
}

async function save(stage: Stage, a: QemuProcess, scenario: Scenario): Promise<Departure> {
  const { capabilities = [], bothParameters } = scenario;
  const set = settings(capabilities, bothParameters);
  return departureOfCommand(stage.vmferry(['save', a.qmpPath, stage.path(CHECKPOINT), ...set]));
}

async function restore(stage: Stage, file: string, scenario: Scenario): Promise<QemuProcess> {
  const { capabilities = [], bothParameters } = scenario;
  const b = await stage.startDestination();
  const postcopy = scenario.atOnce === true ? ['--postcopy'] : [];
  const set = settings(capabilities, bothParameters);
  await stage.vmferry(['restore', stage.path(file), b.qmpPath, ...postcopy, ...set]).completed();
  return b;
}

function pickSettings({ capabilities = [], bothParameters = {} }: Scenario): Partial<Scenario> {
  return { capabilities, bothParameters };
}

function expectEnd(scenario: Scenario, { status, why }: Departure): void {
  assert.equal(status, scenario.ends, `migration ${status}${why && `: ${why}`}`);
}

/** The guest is in A as if nothing had been. */
async function staysIn(stage: Stage, a: QemuProcess): Promise<void> {
  const { scenario } = stage.cell;
  const { status } = await a.qmp.execute('query-status');
  const before = stateBefore(scenario);
  // QEMU 7.2 forgets that it was paused.
  assert(
    [before, ...(before === 'paused' ? ['postmigrate'] : [])].includes(status),
    `state of the guest in A is ${status}`,
  );
  // It is to sleep on until it has been moved.
  if (scenario.suspended === true) return;
  if (scenario.stopped === true) await a.qmp.execute('cont');
  await stage.guest.check([a]);
  if (scenario.stopped === true) await a.qmp.execute('stop');
}

/** The guest is in the last process, in the state it was sent off in, and in no other. */
async function worksIn(stage: Stage, lives: readonly [QemuProcess, QemuProcess]): Promise<void> {
  const { scenario } = stage.cell;
  const [a, b] = lives;
  const [before, now] = await Promise.all([a.qmp.execute('query-status'), b.qmp.execute('query-status')]);
  assert(!before.running && before.status !== 'suspended', `the guest is in A still (${before.status})`);
  assert.equal(now.status, stateAfter(scenario), 'state of the guest in B');
  if (scenario.stopped === true) await b.qmp.execute('cont');
  if (scenario.suspended === true && now.status !== 'running') {
    const { status } = await b.qmp.execute('query-status');
    assert.equal(status, 'suspended', 'state of the guest in B before it is woken');
    await b.qmp.execute('system_wakeup');
  }
  await stage.guest.check(lives);
  if (scenario.transport === 'file-offset') {
    const head = (await readFile(stage.path('stream'))).subarray(0, OFFSET);
    assert(head.equals(Buffer.alloc(OFFSET, 'kept')), 'what stood before the offset was overwritten');
  }
}

function ofQemu(b: QemuProcess, landing: Landing): Omit<Move, 'departure'> {
  return {
    async arrive() {
      await landing.arrived();
      return b;
    },
    vanish: () => expectNoGuest(b),
  };
}

function intoNothing(departure: Departure): Move {
  return { departure, arrive: () => assert.fail('arrived nowhere'), vanish: async () => {} };
}

const NOBODY = { signal: () => {} };

/** B has ended, or has stayed without a guest and is ended here. */
async function expectNoGuest(b: QemuProcess): Promise<void> {
  const status = await b.qmp.execute('query-status').catch(() => undefined);
  assert(status?.running !== true, 'the guest runs in B though the migration did not complete');
  await b.stop();
}

/** Neither whole nor in parts; a writer that was killed could not clear away what it had, but that looks like nothing: it has no header. */
async function expectNoCheckpoint(stage: Stage): Promise<void> {
  const killed = stage.cell.scenario.steps?.some((step) => 'act' in step && step.act === 'kill-destination') ?? false;
  const left = (await readdir(stage.folder)).filter((name) => name.includes(CHECKPOINT));
  if (!killed) assert.deepEqual(left, [], 'parts of a checkpoint were left behind');
  for (const name of left) {
    assert(name.startsWith('.') && name.endsWith('.tmp'), `${name} was left behind`);
    const head = (await readFile(stage.path(name))).subarray(0, 4);
    assert(head.equals(Buffer.alloc(head.length)), `${name} looks like a checkpoint`);
  }
}
