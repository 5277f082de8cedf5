import { explain } from '../../../src/base/index.ts';
import { findPeer } from '../../../src/qemu/index.ts';
import { TlsFolders } from '../../support/tls-folders.ts';
import { playBetween } from './between.ts';
import { NotTaken } from './ends.ts';
import { isAtOnce, judge } from './judge.ts';
import { type Cell, type Column, cellName, columnName, type Played, type Result, type Row } from './model.ts';
import { QemuCells } from './with-qemu.ts';

/** Far above what any cell takes on a busy machine: one that is ended by this is a failure, ms. */
const DEADLINE_MS = 120_000;

/** No difference at all: what every cell of a column is measured by. */
const PLAIN: Row = { kind: 'machine', title: 'nothing', named: /(?!)/, both: {}, one: {}, harmless: true, ends: 'all' };

/** Plays cells one after another, or several at a time. */
export class Player {
  readonly #folders = new TlsFolders();
  readonly #tls = this.#folders.psk('cells');
  /** Time of a plain move in each column, by its name. */
  readonly #plain = new Map<string, Promise<number>>();
  #qemus: Promise<QemuCells> | undefined;

  /** Never throws. */
  async play(cell: Cell): Promise<Result> {
    const { row, side, column } = cell;
    const startedMs = performance.now();
    const done = (outcome: Result['outcome'], words: string, ms = performance.now() - startedMs): Result => {
      const names = { cell: cellName(cell), row: row.title, side, column: columnName(column) };
      return { ...names, outcome, words, ms: Math.round(ms) };
    };
    const missing = await whatIsMissing(column);
    if (missing !== undefined) return done('skip', missing);
    try {
      let plainMs = await this.#plainMs(column);
      const played = await this.#inTime(cell);
      // A machine that has become busy is no reason: then a plain move takes longer too.
      if (!isAtOnce(played, plainMs)) plainMs = await this.#measure(column);
      const { outcome, words } = judge(cell, played, plainMs);
      return done(outcome, words, played.ms);
    } catch (thrown) {
      return done('fail', explain(thrown));
    }
  }

  /** How long a plain move takes between the ends of that column, ms. Throws why there is none. */
  #plainMs(column: Column): Promise<number> {
    const name = columnName(column);
    const known = this.#plain.get(name);
    if (known !== undefined) return known;
    const measured = this.#measure(column);
    this.#plain.set(name, measured);
    measured.catch(() => this.#plain.delete(name));
    return measured;
  }

  async close(): Promise<void> {
    await (await this.#qemus)?.close();
    this.#folders.close();
  }

  async #measure(column: Column): Promise<number> {
    const cell: Cell = { row: PLAIN, side: 'source', column };
    const played = await this.#inTime(cell);
    const { outcome, words } = judge(cell, played, DEADLINE_MS);
    if (outcome !== 'migrates') throw new Error(`a plain move ${outcome}: ${words}`);
    return played.ms;
  }

  async #inTime(cell: Cell): Promise<Played> {
    const end = new AbortController();
    const late = new Error(`not over after ${DEADLINE_MS / 1000} s`);
    const timer = setTimeout(() => end.abort(late), DEADLINE_MS);
    try {
      const played = await this.#play(cell, end.signal);
      end.signal.throwIfAborted();
      return played;
    } catch (thrown) {
      if (thrown instanceof NotTaken) return { notTaken: thrown.message, ends: [], ms: 0 };
      throw end.signal.aborted ? late : thrown;
    } finally {
      clearTimeout(timer);
    }
  }

  async #play(cell: Cell, signal: AbortSignal): Promise<Played> {
    if (cell.column.way === 'between') return await playBetween(cell, this.#tls, signal);
    this.#qemus ??= QemuCells.open(this.#tls);
    return await (await this.#qemus).play(cell, signal);
  }
}

/** With CI=true a missing QEMU is no reason: then the cell fails. */
async function whatIsMissing(column: Column): Promise<string | undefined> {
  if (column.way === 'between' || process.env['CI'] === 'true') return undefined;
  const { version } = column;
  return (await findPeer(version)) === undefined
    ? `no QEMU ${version} here (node scripts/setup.mjs --peers)`
    : undefined;
}
