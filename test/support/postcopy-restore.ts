/** A checkpoint that is restored into a QEMU by postcopy, over a link that can be cut and replaced. */
import assert from 'node:assert/strict';
import type { SourceMachine } from '../../src/machine/index.ts';
import { type MigrationStatus, OutgoingMigration, type OutgoingResult, routeTo } from '../../src/migration/index.ts';
import type { QemuProcess } from '../../src/qemu/index.ts';
import type { Settings } from '../../src/settings/index.ts';
import { inTime } from '../campaign/deadline.ts';
import { assertCompleted } from './completed.ts';
import { type CutDirection, type CutPlan, type CutProxy, cutProxy } from './cut-proxy.ts';
import { testSettings } from './move.ts';
import { capabilities, listening } from './qemu-lab.ts';

const STEP_TIMEOUT_MS = 60_000;
const SENT_POLL_MS = 2;

/** Its destination dies of a recovery with preempt, once in a dozen of three, whether its source is vmferry or QEMU 10.0 itself. */
export const DIES_OF_PREEMPT_RECOVERY = '10.0';

export interface RestoreOptions {
  readonly preempt: boolean;
  /** max-postcopy-bandwidth, bytes a second; 0: as fast as it goes. */
  readonly bandwidth: number;
}

/**
 * What a cut has come to. `paused`: both sides wait for another connection. `over`: it came too late, all is done. `arrived`: the destination
 * has everything, but the source was not told.
 */
export type AfterCut = 'paused' | 'over' | 'arrived';

/** Bytes that have come to the link, by connection: 0 is main. */
export type Passed = readonly Readonly<Record<CutDirection, number>>[];

export class PostcopyRestore {
  readonly states: MigrationStatus[] = [];
  readonly to: QemuProcess;
  readonly #migration: OutgoingMigration;
  readonly #settings: Settings;
  readonly #waiters = new Map<MigrationStatus, () => void>();
  #ended: Promise<OutgoingResult> | undefined;
  #proxy: CutProxy;
  #passed: { toTarget: number; toClient: number }[] = [];

  private constructor(machine: SourceMachine, to: QemuProcess, proxy: CutProxy, options: RestoreOptions) {
    this.to = to;
    this.#proxy = this.#counted(proxy);
    this.#settings = testSettings((settings) => {
      settings.setCapabilities([
        { capability: 'postcopy-ram', state: true },
        { capability: 'postcopy-preempt', state: options.preempt },
      ]);
      // A QEMU has one, whatever is asked for.
      settings.setParameters({ 'x-postcopy-preempt-channels': 16 });
    });
    this.bandwidth = options.bandwidth;
    const { connect, dial } = routeTo(proxy.address);
    this.#migration = new OutgoingMigration({
      machine,
      settings: this.#settings,
      connect,
      dial,
      returnPath: () => true,
      observer: {
        status: (status) => {
          this.states.push(status);
          this.#waiters.get(status)?.();
        },
      },
    });
    this.#migration.startPostcopy();
  }

  /** `to` waits for a migration, with nothing set yet. */
  static async open(machine: SourceMachine, to: QemuProcess, options: RestoreOptions): Promise<PostcopyRestore> {
    await capabilities(to, 'events', 'postcopy-ram', ...(options.preempt ? ['postcopy-preempt'] : []));
    return new PostcopyRestore(machine, to, await cutProxy(await listening(to)), options);
  }

  /** Begins. Resolves when the guest runs at the destination, which is told here and there. */
  async start(): Promise<void> {
    const resumed = this.to.qmp.waitForEvent('RESUME', { timeoutMs: STEP_TIMEOUT_MS });
    const active = this.next('postcopy-active');
    this.#ended = this.#migration.run();
    await this.#unlessOver(Promise.all([resumed, active]));
  }

  set bandwidth(bytesPerSecond: number) {
    this.#settings.setParameters({ 'max-postcopy-bandwidth': bytesPerSecond });
  }

  /** Bytes of memory and records sent so far. */
  get transferred(): number {
    return this.#migration.info().ram?.transferred ?? 0;
  }

  get requests(): number {
    return this.#migration.info().ram?.['postcopy-requests'] ?? 0;
  }

  get passed(): Passed {
    return this.#passed;
  }

  /** Resolves when it comes into that state again. */
  next(state: MigrationStatus): Promise<void> {
    return new Promise((resolve) => this.#waiters.set(state, resolve));
  }

  /** Resolves when so many bytes have gone from now on. */
  async sent(byteCount: number): Promise<void> {
    const until = this.transferred + byteCount;
    while (this.transferred < until) await new Promise((resolve) => setTimeout(resolve, SENT_POLL_MS));
  }

  /** Cuts all connections now, and sees both sides pause. */
  async sever(how: 'reset' | 'end'): Promise<void> {
    assert.equal(await this.#afterwards(() => this.#proxy.sever(how)), 'paused');
  }

  /** Has one connection, which may be yet to be made, cut when so many more bytes have come to it in that direction. */
  async cut({ direction, after, how, connection = 0 }: CutPlan): Promise<AfterCut> {
    const passed = this.#passed[connection]?.[direction] ?? 0;
    return await this.#afterwards(() => this.#proxy.arm({ direction, after: passed + after, how, connection }));
  }

  /** Another link. Resolves when pages flow again. `first`: the new link is cut as well, and made again. */
  async recover(first?: CutPlan): Promise<void> {
    await this.#replaceLink();
    if (first !== undefined) {
      const then = await this.#afterwards(() => {
        this.#proxy.arm(first);
        this.#resume();
      });
      assert.equal(then, 'paused');
      await this.#replaceLink();
    }
    const active = this.next('postcopy-active');
    this.#resume();
    await this.#unlessOver(active);
  }

  /** Resolves when it has completed on both sides. */
  async completed(): Promise<void> {
    const result = await this.#run;
    assertCompleted(result);
    assert.equal(this.states.at(-1), 'completed');
    await this.to.qmp.waitForMigration(['completed'], { timeoutMs: STEP_TIMEOUT_MS });
  }

  /** Ends it, however far it is. */
  async close(): Promise<void> {
    this.#migration.abandon();
    await this.#ended;
    await this.#proxy.close();
  }

  get #run(): Promise<OutgoingResult> {
    assert(this.#ended !== undefined, 'it has been started');
    return this.#ended;
  }

  /** Does what may end the connections, and sees how both sides take it: first ours, which has left the state that theirs may be in still. */
  async #afterwards(act: () => void): Promise<AfterCut> {
    const paused = this.next('postcopy-paused').then(() => 'paused' as const);
    act();
    const either = Promise.race([paused, this.#run.then(() => 'over' as const)]);
    const ours = await inTime(either, STEP_TIMEOUT_MS, 'the source to notice');
    const ends = { timeoutMs: STEP_TIMEOUT_MS };
    const theirs = await this.to.qmp.waitForMigration(['postcopy-paused', 'completed'], ends);
    return ours === 'paused' && theirs.status === 'completed' ? 'arrived' : ours;
  }

  #resume(): void {
    this.#migration.postcopy.resume(routeTo(this.#proxy.address));
  }

  async #replaceLink(): Promise<void> {
    await this.#proxy.close();
    this.#proxy = this.#counted(await cutProxy(await listening(this.to, 'migrate-recover')));
  }

  #counted(proxy: CutProxy): CutProxy {
    const passed: { toTarget: number; toClient: number }[] = [];
    this.#passed = passed;
    proxy.onBytes = (direction, bytes, connection) => {
      const counts = passed[connection] ?? { toTarget: 0, toClient: 0 };
      passed[connection] = counts;
      counts[direction] += bytes.length;
    };
    return proxy;
  }

  async #unlessOver(promise: Promise<unknown>): Promise<void> {
    const over = this.#run.then((result) => {
      if (result.status === 'completed') return;
      throw new Error(`the migration has ${result.status}`, { cause: result.error });
    });
    over.catch(() => {});
    await Promise.race([promise, over]);
  }
}
