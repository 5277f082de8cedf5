import { asError, explain, nowMs, StateMachine } from '../../base/index.ts';
import { type ChannelInfo, prepareThreads, type ThreadKind } from '../../dataplane/index.ts';
import type { LoadCost, RunState, SourceMachine } from '../../machine/index.ts';
import { type CompatProfile, type SettingsView, WAITS } from '../../settings/index.ts';
import type { Channel } from '../../transport/index.ts';
import { isNeverStarted, MigrationError, unsupported, wrongState } from '../errors.ts';
import { leftEarly } from '../gave-up.ts';
import { type Agreement, agreedInfo, agreedSettings, preemptChannels } from '../handshake/agreement.ts';
import { shakeHandsAsSource } from '../handshake/ends.ts';
import type { MigrationInfo, MigrationStatus } from '../host.ts';
import { beginPostcopy, connectPreemptEarly, requirePostcopy } from '../postcopy/source/begin.ts';
import type { PostcopySource } from '../postcopy/source/postcopy-source.ts';
import type { StallWatch } from '../stall-watch.ts';
import { Statistics } from '../statistics.ts';
import { OUTGOING_ARCS } from '../status.ts';
import type { Dial } from './dial-all.ts';
import { Links } from './links.ts';
import type { CopyTo, MoreChannels } from './multifd.ts';
import { Precopy } from './precopy.ts';
import type { SourceRun } from './run.ts';
import { setUp } from './setup.ts';
import { StreamWriter } from './stream-writer.ts';
import { type Confirmation, handOver, switchOver } from './switchover.ts';
import { SwitchoverAcks } from './switchover-acks.ts';
import { SwitchoverCosts } from './switchover-costs.ts';
import { SourceWaits } from './waits.ts';

export interface OutgoingObserver {
  status?(status: MigrationStatus): void;
  /** A new round over the dirty log. */
  pass?(pass: number): void;
  /** The guest was stopped for the switchover / runs again here. */
  stopped?(): void;
  resumed?(): void;
}

export interface OutgoingOptions {
  readonly machine: SourceMachine;
  /** Read live: limits may change while the migration runs. */
  readonly settings: SettingsView;
  /** Connects; must end when `signal` aborts. */
  readonly connect: (signal: AbortSignal) => Promise<Channel>;
  /** Makes further connections to the same destination; absent where there can be only one (fd:, exec:, file:). */
  readonly dial?: Dial | undefined;
  /** Over TLS: nothing of the guest goes before the destination has answered, as it may not take us for who we are. */
  readonly secured?: boolean;
  /** The destination is in this process and one of both machines is a file: with multifd, threads copy pages to its RAM. */
  readonly copyTo?: CopyTo | undefined;
  /** Whether a destination can answer on this channel; without one nobody knows whether the guest has arrived. */
  readonly returnPath: (channel: Channel) => boolean;
  /** Nobody runs the guest at the far end (a file): until all is well there the guest can always be taken back. */
  readonly inert?: boolean;
  readonly observer?: OutgoingObserver;
  /** Why the destination failed, where it can be asked (it lives in this process); waited for after a failure. */
  readonly farFailure?: () => Promise<Error | undefined>;
}

export type OutgoingResult =
  | { readonly status: 'completed'; readonly info: MigrationInfo }
  | { readonly status: 'failed' | 'cancelled'; readonly info: MigrationInfo; readonly error: Error };

/**
 * The source conductor of one migration. Who owns the guest:
 *
 *   setup, active      the guest runs here; any failure leaves it so
 *   pre-switchover,
 *   device             stopped here; any failure resumes it - until the commit point
 *   commit point       the EOF byte of the main stream. It is written only after the destination has answered a PING that stands behind
 *                      the last device section, that is: all state is loaded there. From this byte on a QEMU destination may start the
 *                      guest, even when the rest is cut off (qemu-wire fact 5), so the source never resumes by itself any more
 *   completed          SHUT 0 has come: the guest is there
 *
 * Only a vmferry destination's SHUT_NEVER_STARTED gives the guest back after the commit point.
 */
export class OutgoingMigration {
  readonly #machine: SourceMachine;
  /** As the process has them; after a handshake as both ends use them. */
  #settings: SettingsView;
  /** With the other end, if it has shaken hands. */
  #agreement: Agreement | undefined;
  readonly #options: OutgoingOptions;
  readonly #observer: OutgoingObserver;
  readonly #state: StateMachine<MigrationStatus>;
  readonly #statistics: Statistics;
  readonly #abort = new AbortController();
  readonly #waits: SourceWaits;
  #links: Links | undefined;
  #stalls: StallWatch | undefined;
  #failure: Error | undefined;
  #committed = false;
  /** The state that the switchover found the machine in; a failure gives it back. */
  #stoppedFrom: RunState | undefined;
  #postcopyWanted = false;
  #postcopy: PostcopySource | undefined;

  constructor(options: OutgoingOptions) {
    this.#options = options;
    this.#machine = options.machine;
    this.#settings = options.settings;
    this.#observer = options.observer ?? {};
    this.#state = new StateMachine<MigrationStatus>('none', OUTGOING_ARCS, ({ to }) => this.#observer.status?.(to));
    this.#waits = new SourceWaits({
      settings: () => this.#settings,
      signal: this.#abort.signal,
      status: () => this.status,
      move: (status) => this.#state.move(status),
    });
    this.#statistics = new Statistics(
      this.#machine.targetPageSize,
      this.#machine.ram.reduce((sum, block) => sum + block.usedLength, 0),
    );
  }

  get status(): MigrationStatus {
    return this.#state.state;
  }

  info(): MigrationInfo {
    const info = this.#statistics.info(this.status);
    if (this.#settings.capability('xbzrle') && this.status !== 'setup') {
      info['xbzrle-cache'] = this.#statistics.xbzrle(this.#settings.parameter('xbzrle-cache-size'));
    }
    if (this.#agreement !== undefined) info['x-handshake'] = agreedInfo(this.#agreement);
    if (this.#settings.capability('postcopy-preempt'))
      info['x-postcopy-preempt-channels'] = preemptChannels(this.#settings, this.#agreement);
    const error = this.#failure ?? this.#postcopy?.pausedBy;
    if (error !== undefined) info['error-desc'] = explain(error);
    const stalls = this.#postcopy?.stalls ?? this.#stalls;
    const beside = this.#statistics.endMs === undefined ? (stalls?.waitingFor ?? this.#machine.waitingFor) : undefined;
    const waitingFor = this.#waits.what ?? beside;
    if (waitingFor !== undefined) info['x-waiting-for'] = waitingFor;
    return info;
  }

  /** Those of parallel channels. */
  get threads(): readonly ChannelInfo[] {
    return this.#links?.channels?.threads ?? [];
  }

  /** Ends the migration; the guest goes on here. Throws MIGRATION_STATE when it has been handed over already. */
  cancel(): void {
    if (this.#committed) {
      throw wrongState(this.status, 'the guest has been handed over to the destination: too late to cancel');
    }
    this.#fail(new MigrationError({ code: 'MIGRATION_CANCELLED' }, 'the migration was cancelled'));
  }

  /** The guest shall run on at the destination before all of its memory is there. Throws MIGRATION_STATE. */
  startPostcopy(): void {
    if (!this.#settings.capability('postcopy-ram'))
      throw wrongState(this.status, 'postcopy-ram was not on when the migration began');
    this.#postcopyWanted = true;
  }

  /** The postcopy under way. Throws MIGRATION_STATE if there is none. */
  get postcopy(): PostcopySource {
    if (this.#postcopy === undefined) throw wrongState(this.status, 'there is no postcopy under way');
    return this.#postcopy;
  }

  /** Ends whatever is under way, since the process ends. A guest that has been handed over is not taken back. */
  abandon(): void {
    const reason = new MigrationError({ code: 'MIGRATION_CANCELLED' }, 'the process was told to quit');
    if (this.#committed) this.#postcopy?.abandon(reason);
    else this.#fail(reason);
  }

  /** Ends the wait of pause-before-switchover. */
  continue(): void {
    this.#waits.continue();
  }

  /** Runs the migration to its end; never throws. */
  async run(): Promise<OutgoingResult> {
    this.#state.move('setup');
    try {
      await this.#migrate();
      await this.#finish();
      this.#state.move('completed');
      return { status: 'completed', info: this.info() };
    } catch (thrown) {
      this.#fail(asError(thrown));
      return await this.#giveUp();
    } finally {
      if (this.#settings.capability('multifd')) prepareThreads(this.#threadKind, 0);
    }
  }

  /** Records the first cause, and makes everything that waits on the channel stop. */
  #fail(error: Error): void {
    if (this.#failure !== undefined) return;
    this.#failure = error;
    const cancelled = isCancelled(error) && this.#state.can('cancelling');
    if (cancelled) this.#state.move('cancelling');
    this.#abort.abort(error);
    this.#links?.destroy(error);
  }

  async #migrate(): Promise<void> {
    const { dial } = this.#options;
    // Before anybody is asked to take a connection.
    this.#moreChannels();
    this.#waits.what = WAITS.connection.what;
    const main = await this.#options.connect(this.#abort.signal);
    if (this.#settings.capability('x-vmferry-handshake')) await this.#shakeHands(main);
    this.#waits.what = undefined;
    const run = this.#begin(main);
    const more = this.#moreChannels();
    if (this.#settings.capability('postcopy-ram')) requirePostcopy(run, dial);
    let confirmation: Confirmation;
    let postcopy: PostcopySource | undefined;
    try {
      await connectPreemptEarly(run, dial);
      const ram = await setUp(run, more, this.#options.secured === true, (error) => this.#lost(error));
      if ((await new Precopy(run, ram).run()) === 'postcopy') postcopy = await beginPostcopy(run, ram, dial);
      else confirmation = await switchOver(run, ram);
    } finally {
      await this.#machine.dirtyLog?.stop();
      this.#machine.throttle(0);
    }
    if (postcopy === undefined) return await handOver(run, confirmation);
    this.#check();
    run.commit();
    this.#postcopy = postcopy;
    await postcopy.run();
  }

  async #shakeHands(main: Channel): Promise<void> {
    this.#waits.what = WAITS.handshake.what;
    if (!this.#options.returnPath(main)) {
      const error = unsupported('x-vmferry-handshake over a channel on which nobody can answer');
      main.destroy(error);
      throw error;
    }
    const moreConnections = this.#options.dial !== undefined;
    const terms = { machine: this.#machine, settings: this.#settings, moreConnections };
    this.#agreement = await shakeHandsAsSource(main, terms, this.#abort.signal);
    this.#settings = agreedSettings(this.#settings, this.#agreement);
    if (!this.#settings.capability('multifd')) prepareThreads(this.#threadKind, 0);
  }

  /** A connection has broken. In a postcopy that is no reason to give up. */
  #lost(error: Error): void {
    if (this.#postcopy === undefined) this.#fail(error);
    else this.#links?.destroy(error);
  }

  #moreChannels(): MoreChannels | undefined {
    if (!this.#settings.capability('multifd')) return undefined;
    const { dial, copyTo } = this.#options;
    prepareThreads(this.#threadKind, this.#settings.parameter('multifd-channels'));
    if (copyTo !== undefined) return { copyTo };
    if (dial !== undefined) return { dial };
    throw unsupported('multifd over a single connection');
  }

  get #threadKind(): ThreadKind {
    return this.#options.copyTo === undefined ? 'send' : 'copy';
  }

  #begin(main: Channel): SourceRun {
    const machine = this.#machine;
    const links = new Links(main, this.#options.returnPath(main), (error) => this.#lost(error));
    this.#links = links;
    this.#stalls = links.watch(this.#settings, (error) => this.#lost(error));
    this.#statistics.follow(() => links.traffic);
    this.#check();
    const profile = this.#settings.dialect(machine.machineType);
    return {
      machine,
      settings: this.#settings,
      profile,
      statistics: this.#statistics,
      links,
      stream: new StreamWriter(machine, links.output, profile),
      acks: this.#acks(links, profile),
      costs: new SwitchoverCosts(machine, links.returnPath, this.#loadCostTold),
      preemptChannels: preemptChannels(this.#settings, this.#agreement),
      signal: this.#abort.signal,
      check: () => this.#check(),
      lost: (error) => this.#lost(error),
      status: () => this.status,
      move: (status) => this.#state.move(status),
      wait: (promise, wait) => this.#waits.inTime(promise, wait),
      waitsFor: (what) => {
        this.#waits.what = what;
      },
      postcopyWanted: () => this.#postcopyWanted,
      passed: () => this.#observer.pass?.(this.#statistics.syncCount),
      stopping: (from) => {
        this.#stoppedFrom = from;
      },
      stopped: () => {
        if (this.#stoppedFrom === 'running') this.#observer.stopped?.();
      },
      pause: () => this.#waits.pause(),
      commit: () => {
        this.#committed = this.#options.inert !== true;
      },
    };
  }

  /** By the destination, in the handshake. */
  get #loadCostTold(): LoadCost | undefined {
    const load = this.#agreement?.peer.load;
    return load && { bytesPerMs: Number.POSITIVE_INFINITY, ...load };
  }

  #acks({ returnPath }: Links, { switchoverAckLegacy: legacy }: CompatProfile): SwitchoverAcks | undefined {
    if (returnPath === undefined || !this.#settings.capability('switchover-ack')) return undefined;
    const { iterables } = this.#machine;
    const timeoutMs = () => this.#settings.parameter(WAITS.ready.deadline);
    const agreed = this.#agreement?.prepares;
    const acks = new SwitchoverAcks({ legacy, iterables, peer: () => returnPath.peer, agreed, timeoutMs });
    returnPath.switchoverAcked = () => acks.acked();
    return acks;
  }

  #check(): void {
    if (this.#failure !== undefined) throw this.#failure;
  }

  async #finish(): Promise<void> {
    const now = nowMs();
    this.#statistics.endMs = now;
    this.#statistics.downtimeMs ??= now - this.#statistics.stopMs!;
    this.#statistics.remainingPages = 0;
    this.#machine.setRunState('postmigrate');
    await this.#links?.closed();
    await this.#cleanUp();
  }

  /** Devices end their sessions. What fails here changes nothing any more: a device that does not work is found when the guest runs. */
  async #cleanUp(): Promise<void> {
    await Promise.allSettled(this.#machine.iterables.map((iterable) => iterable.cleanup()));
  }

  async #giveUp(): Promise<OutgoingResult> {
    if (this.#isBeginning) this.#failure = leftEarly(this.#failure!, 'destination', this.#settings);
    let error = this.#failure!;
    this.#waits.what = undefined;
    this.#statistics.endMs = nowMs();
    this.#links?.destroy(error);
    await this.#links?.closed();
    const far = await this.#options.farFailure?.();
    await this.#cleanUp();
    if (this.#committed && !isNeverStarted(error)) {
      error = new MigrationError(
        { code: 'MIGRATION_UNCONFIRMED' },
        'the guest was handed over, but the destination did not confirm it: it may run there. It stays stopped here. If it does not run ' +
          "there, end the destination and let it run here with 'cont'",
        error,
      );
      this.#failure = error;
      this.#machine.setRunState('postmigrate');
    } else if (this.#stoppedFrom === 'running') {
      try {
        await this.#machine.resume();
        this.#observer.resumed?.();
      } catch (cause) {
        this.#failure = new AggregateError(
          [error, cause],
          `${explain(error)}; and the guest could not be resumed: ${explain(cause)}`,
        );
        error = this.#failure;
      }
    } else if (this.#stoppedFrom !== undefined) {
      this.#machine.setRunState(this.#stoppedFrom);
    }
    const status = this.#state.state === 'cancelling' ? 'cancelled' : 'failed';
    if (far !== undefined && status === 'failed' && !this.unconfirmed) {
      error = far;
      this.#failure = far;
    }
    this.#state.move(status);
    return { status, info: this.info(), error };
  }

  /** The first round, or the destination has not said a word yet; and nobody has compared the two ends. */
  get #isBeginning(): boolean {
    if (this.#settings.capability('x-vmferry-handshake')) return false;
    const returnPath = this.#links?.returnPath;
    const isSilent = returnPath !== undefined && returnPath.peer === undefined;
    return isSilent || (this.#statistics.syncCount <= 1 && this.#statistics.stopMs === undefined);
  }

  /** Whether the machine was left stopped after the commit point. */
  get unconfirmed(): boolean {
    return this.#failure instanceof MigrationError && this.#failure.code === 'MIGRATION_UNCONFIRMED';
  }
}

function isCancelled(error: Error): boolean {
  return error instanceof MigrationError && error.code === 'MIGRATION_CANCELLED';
}
