import type { LoadEngine, LoadTask, SectionName } from '../../machine/index.ts';
import type { ParameterValue } from '../../settings/index.ts';

export type ConfigLoad = ParameterValue<'x-device-config-load'>;

/**
 * Everything of a machine's loading that goes on beside the main stream: one queue, owned by the engine, so that whoever commits knows that nothing
 * is left and whoever fails ends all of it. Tasks run as soon as they may: those with the machine lock one at a time, in the
 * order in which they became ready; the rest all together. When a configuration may be loaded is the setting x-device-config-load:
 *
 *     parallel           its device's state is loaded
 *     after-iterables    the state of every device is loaded
 *     serial             its device's state is loaded; every configuration takes the machine lock, whether its device needs it or not
 */
export class LoadTasks implements LoadEngine {
  readonly signal: AbortSignal;
  readonly #configLoad: ConfigLoad;
  readonly #failed: (error: unknown) => void;
  readonly #initialDataLoaded: (section: SectionName) => void;
  /** Those that have not ended. */
  #open = 0;
  #openStates = 0;
  #lock: Promise<unknown> = Promise.resolve();
  #waiters: (() => void)[] = [];

  /** `failed`: called with every failure of a task; it aborts `signal`. */
  constructor(options: {
    readonly signal: AbortSignal;
    readonly configLoad: ConfigLoad;
    readonly failed: (error: unknown) => void;
    readonly initialDataLoaded: (section: SectionName) => void;
  }) {
    this.signal = options.signal;
    this.#configLoad = options.configLoad;
    this.#failed = options.failed;
    this.#initialDataLoaded = options.initialDataLoaded;
    this.signal.addEventListener('abort', () => this.#changed(), { once: true });
  }

  run(task: LoadTask): Promise<void> {
    this.#open++;
    if (task.kind === 'state') this.#openStates++;
    const done = this.#run(task);
    done.then(
      () => this.#ended(task),
      (error) => {
        this.#failed(error);
        this.#ended(task);
      },
    );
    return done;
  }

  failed(error: Error): void {
    this.#failed(error);
  }

  initialDataLoaded(section: SectionName): void {
    this.#initialDataLoaded(section);
  }

  /** Resolves when no task is left. Throws what the migration failed with. */
  settled(): Promise<void> {
    return this.#until(() => this.#open === 0);
  }

  async #run(task: LoadTask): Promise<void> {
    await task.after;
    const run = async () => {
      if (this.#waitsForAll(task)) await this.#until(() => this.#openStates === 0);
      this.signal.throwIfAborted();
      await task.run();
    };
    if (!this.#locks(task)) return await run();
    const held = this.#lock.then(run);
    this.#lock = held.catch(() => {});
    await held;
  }

  #waitsForAll({ kind }: LoadTask): boolean {
    return kind === 'config' && this.#configLoad === 'after-iterables';
  }

  #locks({ kind, lock }: LoadTask): boolean {
    return lock || (kind === 'config' && this.#configLoad === 'serial');
  }

  #ended(task: LoadTask): void {
    this.#open--;
    if (task.kind === 'state') this.#openStates--;
    this.#changed();
  }

  async #until(holds: () => boolean): Promise<void> {
    for (;;) {
      this.signal.throwIfAborted();
      if (holds()) return;
      await new Promise<void>((resolve) => this.#waiters.push(resolve));
    }
  }

  #changed(): void {
    const waiters = this.#waiters;
    this.#waiters = [];
    for (const wake of waiters) wake();
  }
}
