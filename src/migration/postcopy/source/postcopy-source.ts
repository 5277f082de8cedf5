import { asError, nowMs } from '../../../base/index.ts';
import { type TimedWait, WAITS } from '../../../settings/index.ts';
import { isNeverStarted, MigrationError, unsupported, wrongState } from '../../errors.ts';
import type { DirtyPages } from '../../source/dirty-pages.ts';
import { Links } from '../../source/links.ts';
import type { SourceRun } from '../../source/run.ts';
import type { StallWatch } from '../../stall-watch.ts';
import { discardCommands } from './discards.ts';
import { PageLane } from './page-lane.ts';
import { PageServer } from './page-server.ts';
import { connectPreempt } from './preempt-channels.ts';
import { askForBitmaps, resumeThere } from './recovery.ts';
import { RemainingRam } from './remaining-ram.ts';
import type { Route } from './route.ts';

/** PING values, as QEMU has them: before the package, in it, and behind it. The last in it stands behind all devices (since 10.2). */
const PING_BEFORE = 2;
const PING_IN_PACKAGE = 3;
const PING_BEHIND = 4;
const PING_LOADED = 0x42;
/** POSTCOPY_RUN, the last element of the package, bytes. */
const RUN_BYTES = 5;

/**
 * The source of a postcopy, from the stopped guest to its confirmation at the destination:
 *
 *   prepare   discards, the package of devices without its last element; whatever fails, the guest is still the source's
 *   run       the last element, with which the guest may run there: from then on nothing that fails ends the migration, it only pauses it.
 *             Then pages until none is left, END, SHUT 0; through as many connections as it takes
 *
 * The guest comes back only if the destination says that it never has run there (SHUT_NEVER_STARTED).
 */
export class PostcopySource {
  readonly #run: SourceRun;
  readonly #ram: RemainingRam;
  /** Of the connection that there is, or was last. */
  #links: Links;
  #server: PageServer;
  /** The destination has loaded all devices: the guest runs there. */
  #loaded: Promise<void> = Promise.resolve();
  #certain = false;
  /** Last element of the package: with it the guest may run there. */
  #last: Buffer = Buffer.alloc(0);
  /** Why there is no connection, while there is none. */
  #pausedBy: Error | undefined;
  #abandonedBy: Error | undefined;
  /** While paused: goes on over that route. */
  #resume: ((route: Route) => void) | undefined;
  #attempt = new AbortController();
  #stalls: StallWatch | undefined;

  /** `dirty`: pages that the destination does not have in their last version. */
  constructor(run: SourceRun, dirty: DirtyPages) {
    this.#run = run;
    this.#links = run.links;
    this.#ram = new RemainingRam(dirty.blocks, dirty.bitmaps, dirty.pageSize);
    this.#server = this.#serverOver(this.#links);
    run.statistics.remainingPages = this.#ram.pages;
  }

  /** Why the migration is paused; undefined if it is not. */
  get pausedBy(): Error | undefined {
    return this.#pausedBy;
  }

  /** Whether the guest is known to run at the destination. */
  get certain(): boolean {
    return this.#certain;
  }

  /** Of the connection that was made last, if it is not the first. */
  get stalls(): StallWatch | undefined {
    return this.#stalls;
  }

  /** Discards and the package, all but its last element. A failure up to here leaves the guest to the source. */
  async prepare(): Promise<void> {
    const { stream, machine } = this.#run;
    const { output } = this.#links;
    for (const block of this.#ram.blocks) {
      for (const command of discardCommands(block, machine.targetPageSize)) await stream.command(command);
    }
    await stream.ping(PING_BEFORE);
    const bytes = await stream.package([PING_IN_PACKAGE, PING_LOADED]);
    this.#last = Buffer.from(bytes.subarray(-RUN_BYTES));
    await stream.command({ name: 'PACKAGED', length: bytes.length });
    await output.put(bytes.subarray(0, -RUN_BYTES));
    await output.drained();
  }

  /**
   * Lets the guest run there and sends the rest. Resolves when the destination has confirmed that it has everything; rejects if the guest
   * has to come back, or when `abandon`ed.
   */
  async run(): Promise<void> {
    this.#run.move('postcopy-device');
    this.#links.favourLatency();
    let sent = this.#letRun();
    for (;;) {
      try {
        await this.#links.whileTheyLast(sent);
        await this.#finish();
        return;
      } catch (thrown) {
        const error = asError(thrown);
        await this.#disconnect(error);
        await sent.catch(() => {});
        if (this.#abandonedBy !== undefined) throw this.#abandonedBy;
        if (isNeverStarted(error)) throw error;
        await this.#pause(error);
        sent = this.#server.run();
      }
    }
  }

  /** QMP migrate-pause: gives the connection up, so that another one can be made. Throws MIGRATION_STATE. */
  pause(): void {
    const status = this.#run.status();
    if (status !== 'postcopy-active' && status !== 'postcopy-recover')
      throw wrongState(status, 'only a postcopy in state postcopy-active or postcopy-recover can be paused');
    const reason = new MigrationError({ code: 'MIGRATION_PAUSED' }, 'the connection was given up (migrate-pause)');
    this.#attempt.abort(reason);
    this.#links.destroy(reason);
  }

  /** QMP migrate with resume: goes on over `route`. Throws MIGRATION_STATE. */
  resume(route: Route): void {
    const goOn = this.#resume;
    if (goOn === undefined) {
      throw wrongState(this.#run.status(), 'there is no paused postcopy that could be resumed');
    }
    this.#resume = undefined;
    goOn(route);
  }

  /** Ends the migration here, wherever it is: `run` rejects with `error`. The guest is the destination's. */
  abandon(error: Error): void {
    this.#abandonedBy ??= error;
    this.#attempt.abort(error);
    this.#links.destroy(error);
  }

  async #letRun(): Promise<void> {
    const { stream, statistics } = this.#run;
    const { output, returnPath } = this.#links;
    this.#loaded = returnPath!.pong(PING_LOADED).then(() => {
      this.#arrived();
      if (this.#run.status() === 'postcopy-device') this.#run.move('postcopy-active');
    });
    this.#loaded.catch(() => {});
    returnPath!.postcopy = {
      pages: (block, start, length) => this.#server.request(block, start, length),
      bitmap: (block) => this.#unasked(`RECV_BITMAP of block '${block}'`),
      resumed: () => this.#unasked('RESUME_ACK'),
    };
    const links = this.#links;
    await output.put(this.#last);
    // From here on its guest stands until it has loaded the devices, however long the pages take.
    this.#wait(this.#loaded, 'loaded').catch((error: unknown) => links.destroy(asError(error)));
    await stream.ping(PING_BEHIND);
    statistics.progress();
    statistics.postcopy = true;
    await this.#server.run();
  }

  /** The guest is known to run there. */
  #arrived(): void {
    const { statistics } = this.#run;
    this.#certain = true;
    statistics.downtimeMs ??= nowMs() - statistics.stopMs!;
  }

  async #finish(): Promise<void> {
    const { stream, profile } = this.#run;
    const links = this.#links;
    await links.whileTheyLast(this.#loaded);
    links.allSent();
    if (profile.preemptPre72) await links.endUrgent();
    const shut = links.returnPath!.shut();
    shut.catch(() => {});
    await stream.finishPostcopy();
    await links.output.drained();
    await this.#wait(shut, 'confirmation');
    // It has: what still goes wrong changes nothing. A destination waits for this end to see that it was heard.
    await this.#run.wait(links.end(), 'closing').catch(() => {});
    await links.closed();
  }

  #wait(promise: Promise<void>, wait: TimedWait): Promise<void> {
    return this.#run.wait(this.#links.whileTheyLast(promise), wait);
  }

  /** Waits until somebody gives another route that works; then there is another connection. Rejects when abandoned. */
  async #pause(cause: Error): Promise<void> {
    const run = this.#run;
    for (let why = cause; ; ) {
      run.move('postcopy-paused');
      this.#pausedBy = why;
      this.#attempt = new AbortController();
      const { signal } = this.#attempt;
      try {
        run.waitsFor(WAITS.recovery.what);
        const route = await this.#routeAsked(signal).finally(() => run.waitsFor(undefined));
        run.move('postcopy-recover-setup');
        await this.#recover(route, signal);
        this.#pausedBy = undefined;
        run.move('postcopy-active');
        return;
      } catch (thrown) {
        why = asError(thrown);
        await this.#disconnect(why);
        if (this.#abandonedBy !== undefined) throw this.#abandonedBy;
      }
    }
  }

  #routeAsked(signal: AbortSignal): Promise<Route> {
    return new Promise<Route>((resolve, reject) => {
      this.#resume = resolve;
      signal.addEventListener('abort', () => reject(asError(signal.reason)), { once: true });
    }).finally(() => {
      this.#resume = undefined;
    });
  }

  async #recover({ connect, dial }: Route, signal: AbortSignal): Promise<void> {
    const { stream, settings, profile, statistics, preemptChannels } = this.#run;
    const preempt = settings.capability('postcopy-preempt');
    if (preempt && dial === undefined) throw unsupported('postcopy-preempt over a single connection');
    const main = await this.#connected(connect(signal));
    const links = new Links(main, true, (error) => links.destroy(error));
    this.#links = links;
    this.#stalls = links.watch(settings, (error) => links.destroy(error));
    signal.addEventListener('abort', () => links.destroy(asError(signal.reason)), { once: true });
    signal.throwIfAborted();
    const addPreempt = () =>
      this.#connected(connectPreempt(links, dial!, preemptChannels, signal, (error) => links.destroy(error)));
    this.#count(links);
    this.#run.move('postcopy-recover');
    stream.moveTo(links.output);
    if (preempt && profile.preemptPre72) await addPreempt();
    const recovering = { links, stream, wait: this.#wait.bind(this) };
    await askForBitmaps(recovering, this.#ram);
    if (preempt && !profile.preemptPre72) await addPreempt();
    statistics.remainingPages = this.#ram.pages;
    links.favourLatency();
    this.#server = this.#serverOver(links);
    await resumeThere(recovering, (block, start, length) => this.#server.request(block, start, length));
    // Only a destination whose guest runs takes up again.
    this.#loaded = Promise.resolve();
    this.#arrived();
  }

  /** A connection that is being made, which whoever makes it limits. */
  #connected<C>(connection: Promise<C>): Promise<C> {
    this.#run.waitsFor(WAITS.connection.what);
    return connection.finally(() => this.#run.waitsFor(undefined));
  }

  /** What goes over these comes on top of what has gone. */
  #count(links: Links): void {
    const { statistics } = this.#run;
    const { mainBytes, channels } = statistics.traffic;
    statistics.follow(() => ({ mainBytes: mainBytes + links.traffic.mainBytes, channels }));
  }

  async #disconnect(error: Error): Promise<void> {
    this.#server.stop(error);
    this.#links.destroy(error);
    await this.#links.closed();
  }

  #serverOver(links: Links): PageServer {
    const { machine, statistics, stream, settings } = this.#run;
    const ram = this.#ram;
    const server = new PageServer({
      ram,
      stream,
      settings,
      statistics,
      background: new PageLane({ machine, ram, statistics, output: links.output, pages: machine }),
      urgent: links.urgent.map(
        (output) => new PageLane({ machine, ram, statistics, output, pages: machine.pageSource?.() ?? machine }),
      ),
      breakHuge: settings.parameter('x-postcopy-preempt-break-huge'),
      targetPageSize: machine.targetPageSize,
    });
    links.returnPath!.arrived = () => server.arrived();
    return server;
  }

  #unasked(what: string): never {
    throw unsupported(`${what} that nobody has asked for`);
  }
}
