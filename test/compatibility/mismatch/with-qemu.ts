/** A cell with a QEMU at one end and vmferry, with a checkpoint, at the other; or with a QEMU at each and `vmferry migrate` between them. */
import assert from 'node:assert/strict';
import { readFile, rm } from 'node:fs/promises';
import { setTimeout as pause } from 'node:timers/promises';
import { explain } from '../../../src/base/index.ts';
import { CheckpointReader } from '../../../src/machine/index.ts';
import type { Host } from '../../../src/migration/index.ts';
import { migrate, type Outcome, type Progress, receive, type ServeHost } from '../../../src/porcelain/index.ts';
import { sendMachine } from '../../../src/porcelain/send.ts';
import type { QemuProcess } from '../../../src/qemu/index.ts';
import { bootProgram, PAGE } from '../../support/guests/boot-sector.ts';
import { bootGuest } from '../../support/guests/guest.ts';
import { QemuLab } from '../../support/qemu-lab.ts';
import { objectsOf, orRefusal, settingsOf, stillWaits, WAITS_ON_MS } from './ends.ts';
import { type Cell, type EndReport, endOf, type Hardware, type Having, type Played, type Side } from './model.ts';
import { finalized, goOn, goOver, leftBehind, listening, prepare, qemuEnd } from './qemu-end.ts';
import { QemuStable } from './qemu-stable.ts';

/** Rests between passes: the source must not keep a busy machine from converging. */
const PROGRAM = bootProgram({ order: 'random', pageCount: 256, rests: true });
const MEMORY = '8M';

/** QEMUs and checkpoints for many cells. */
export class QemuCells {
  readonly #lab: QemuLab;
  /** Folder of the credentials. */
  readonly #tls: string;
  readonly #stable: QemuStable;
  /** A saved machine of each version and make, with the process that it has left. */
  readonly #saved = new Map<string, Promise<Saved>>();
  #files = 0;

  private constructor(lab: QemuLab, tls: string) {
    this.#lab = lab;
    this.#tls = tls;
    this.#stable = new QemuStable(lab, tls);
  }

  static async open(tls: string): Promise<QemuCells> {
    return new QemuCells(await QemuLab.with(bootGuest(PROGRAM, MEMORY)), tls);
  }

  /** Throws what is wrong with the guest, NotTaken, and when `signal` aborts. */
  async play(cell: Cell, signal: AbortSignal): Promise<Played> {
    const lent = new Map<Side, QemuProcess>();
    const start: Start = async (side) => {
      const { column } = cell;
      assert(column.way !== 'between');
      const qemu = await this.#stable.take(column.version, side, endOf(cell, side));
      lent.set(side, qemu);
      // Whoever waits for it hears that it is gone.
      signal.addEventListener('abort', () => qemu.kill(), { once: true });
      await prepare(qemu, settingsFor(cell, side));
      if (side === 'source' && losesLastPages(cell)) await qemu.qmp.execute('stop');
      return qemu;
    };
    let played: Played | undefined;
    try {
      played = await this.#play(cell, start, signal);
      return played;
    } finally {
      const source = lent.get('source');
      if (source !== undefined && played !== undefined && isAsItWas(cell, played)) {
        lent.delete('source');
        await this.#stable.giveBack(source, settingsFor(cell, 'source'));
      }
      await Promise.all([...lent.values()].map((qemu) => this.#stable.end(qemu)));
    }
  }

  async #play(cell: Cell, start: Start, signal: AbortSignal): Promise<Played> {
    switch (cell.column.way) {
      case 'in':
        return await this.#in(cell, start, signal);
      case 'out':
        return await this.#out(cell, start, signal);
      default:
        return await this.#driven(cell, start, signal);
    }
  }

  async close(): Promise<void> {
    await this.#lab.close();
  }

  async #in(cell: Cell, start: Start, signal: AbortSignal): Promise<Played> {
    const settings = settingsOf(endOf(cell, 'destination'));
    const qemu = await start('source');
    const file = this.#lab.path(`arriving-${this.#files++}`);
    const stop = new AbortController();
    const ends = AbortSignal.any([signal, stop.signal]);
    const objects = objectsOf(this.#tls, 'destination');
    let listening = (_uri: string) => {};
    const heard = new Promise<string>((resolve) => {
      listening = resolve;
    });
    const served = keepHost();
    const arriving = receive({
      uri: 'tcp:127.0.0.1:0',
      file,
      settings,
      objects,
      listening,
      serve: served.serve,
      signal: ends,
    });
    try {
      const uri = await orRefusal(Promise.race([heard, arriving.then(() => assert.fail('nobody listened'))]));
      if (uri instanceof Error) return refusedBy('vmferry', 'destination', uri);
      const startedMs = performance.now();
      let firstMs = 0;
      const sent = await orRefusal(qemu.qmp.execute('migrate', { uri }));
      if (sent instanceof Error) return refusedBy('QEMU', 'source', sent);
      if (cell.row.postcopy) await goOver(qemu);
      const leaving = qemuEnd(qemu, 'source', signal);
      void goOn(qemu, leaving);
      void Promise.race([arriving, leaving]).then(() => {
        firstMs = performance.now() - startedMs;
      });
      const arrival = await Promise.race([arriving, leaving.then(() => pause(WAITS_ON_MS, undefined, { signal }))]);
      const waits: Outcome = {
        status: 'failed',
        message: '',
        error: new Error(stillWaits(served.host?.queryMigrate()['x-waiting-for'])),
      };
      const arrived = reportOf('destination', arrival ?? waits);
      // If vmferry waits on for another source, the time that counts is that of the one who was refused.
      const ms = arrival === undefined ? firstMs : performance.now() - startedMs;
      const left = await leftBehind(qemu, 'source', leaving);
      if (arrived.completed && left.completed) await expectSame(file, qemu);
      else await this.#expectAlive(qemu);
      return { ends: [left, arrived], ms };
    } finally {
      stop.abort();
      await arriving.catch(() => {});
      await rm(file, { force: true });
    }
  }

  async #out(cell: Cell, start: Start, signal: AbortSignal): Promise<Played> {
    const source = endOf(cell, 'source');
    const settings = settingsOf(source);
    const { column } = cell;
    assert(column.way === 'out');
    const saved = await this.#save(column.version, source);
    const qemu = await start('destination');
    const uri = await orRefusal(listening(qemu));
    if (uri instanceof Error) return refusedBy('QEMU', 'destination', uri);
    const machine = await CheckpointReader.open(saved.file);
    try {
      const startedMs = performance.now();
      const postcopy = cell.row.postcopy === true;
      const objects = objectsOf(this.#tls, 'source');
      const served = keepHost();
      const progress = ({ status }: Progress) => {
        if (status === 'pre-switchover') void served.host?.migrateContinue(status);
      };
      const sending = sendMachine(machine, { uri, settings, objects, postcopy, signal, serve: served.serve, progress });
      const sent = await orRefusal(sending);
      if (sent instanceof Error) return refusedBy('vmferry', 'source', sent);
      const left = reportOf('source', sent);
      const ms = performance.now() - startedMs;
      const arrived = await leftBehind(qemu, 'destination', qemuEnd(qemu, 'destination', signal));
      if (left.completed && arrived.completed) await this.#lab.guest.check([saved.from, qemu]);
      return { ends: [left, arrived], ms };
    } finally {
      await machine.close();
    }
  }

  async #driven(cell: Cell, start: Start, signal: AbortSignal): Promise<Played> {
    const [a, b] = [await start('source'), await start('destination')];
    const startedMs = performance.now();
    const moving = migrate({
      source: a.qmpPath,
      destination: { qmp: b.qmpPath, uri: 'tcp:127.0.0.1:0' },
      settings: { capabilities: [], parameters: {} },
      signal,
      ...(cell.row.postcopy && { postcopy: { afterRounds: 0 } }),
    });
    void goOn(a, moving);
    const outcome = await orRefusal(moving);
    const ms = performance.now() - startedMs;
    if (outcome instanceof Error) {
      await this.#expectAlive(a);
      return { ...refusedBy('vmferry', 'source', outcome), ms };
    }
    const completed = outcome.status === 'completed';
    if (completed && losesLastPages(cell)) await b.qmp.execute('cont');
    if (completed) await this.#lab.guest.check([a, b]);
    else await this.#expectAlive(a);
    return { ends: [reportOf('source', outcome)], ms };
  }

  /** The guest goes on where it was. */
  async #expectAlive(qemu: QemuProcess): Promise<void> {
    const { qmp } = qemu;
    // One that replicates does so until it is told that the other is gone.
    if ((await qmp.execute('query-migrate')).status === 'colo') await qmp.executeAny('x-colo-lost-heartbeat');
    await finalized(qemu);
    // cpr-reboot stops it first.
    if ((await qmp.execute('query-status')).status !== 'running') await qmp.execute('cont');
    await this.#lab.guest.check([qemu]);
  }

  #save(version: string, { args = [] }: Hardware): Promise<Saved> {
    const key = [version, ...args].join(' ');
    const known = this.#saved.get(key);
    if (known !== undefined) return known;
    const saving = (async (): Promise<Saved> => {
      const from = await this.#stable.take(version, 'source', { args });
      return { from, file: await this.#lab.save(from, `saved-${this.#files++}`) };
    })();
    this.#saved.set(key, saving);
    return saving;
  }
}

/**
 * QEMU 11.1 with postcopy-ram on, a precopy all the same, TCG, a busy machine: pages of the last round are not sent (6 of 28 tries between two QEMUs, 2 of 28
 * into a checkpoint; QEMU 10.0: none of 40). A guest that stands has none.
 */
function losesLastPages({ row, column }: Cell): boolean {
  if (column.way === 'between' || column.way === 'out' || column.version !== '11.1') return false;
  const on = [...(row.both.capabilities ?? []), ...(row.one.capabilities ?? [])];
  return on.includes('postcopy-ram') && row.postcopy !== true;
}

/** Its guest has moved, and would go on here as well; or nothing was begun, as the two do not fit. */
function isAsItWas({ row, column }: Cell, { ends }: Played): boolean {
  if (row.postcopy || row.title === 'release-ram') return false;
  const completed = ends.every((end) => end.completed);
  return completed || (column.way === 'driven' && ends.some(({ words }) => words.includes('do not fit')));
}

/** Without a return path a QEMU source is through when all is sent, wherever it went: nobody drives it so. */
function settingsFor(cell: Cell, side: Side): Having {
  const having = endOf(cell, side);
  if (side === 'destination' || cell.row.one.capabilities?.includes('return-path')) return having;
  return { ...having, capabilities: ['return-path', ...(having.capabilities ?? [])] };
}

type Start = (side: Side) => Promise<QemuProcess>;

interface Saved {
  readonly from: QemuProcess;
  readonly file: string;
}

/** What a manager would see of a command of vmferry's. */
function keepHost(): { host: Host | undefined; readonly serve: ServeHost } {
  const kept: ReturnType<typeof keepHost> = {
    host: undefined,
    serve: async (served) => {
      kept.host = served;
      return { close: async () => {} };
    },
  };
  return kept;
}

function reportOf(side: Side, { status, error }: Outcome): EndReport {
  const words = error === undefined ? '' : explain(error);
  return { who: 'vmferry', side, completed: status === 'completed', words };
}

function refusedBy(who: EndReport['who'], side: Side, error: Error): Played {
  return { ends: [{ who, side, completed: false, words: explain(error) }], ms: 0 };
}

/** The guest's pages in a checkpoint are those that it has left. */
async function expectSame(file: string, qemu: QemuProcess): Promise<void> {
  const { start, pageCount } = PROGRAM;
  const filename = `${file}.memory`;
  const reader = await CheckpointReader.open(file);
  try {
    await qemu.qmp.execute('pmemsave', { val: start, size: pageCount * PAGE, filename });
    const left = await readFile(filename);
    const block = reader.ram.find(({ idstr }) => idstr === 'pc.ram');
    assert(block !== undefined, 'the checkpoint has no pc.ram');
    for (let page = 0; page < pageCount; page++) {
      const { bytes, firstPage } = await reader.window(block.index, start / PAGE + page);
      const at = (start / PAGE + page - firstPage) * PAGE;
      const same = bytes.subarray(at, at + PAGE).equals(left.subarray(page * PAGE, (page + 1) * PAGE));
      assert(same, `page ${page} of the guest is another`);
    }
  } finally {
    await reader.close();
    await rm(filename, { force: true });
  }
}
