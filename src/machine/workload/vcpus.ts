/** The vCPUs as the machine sees them: threads that are started, asked and ended together. */
import { Worker } from 'node:worker_threads';
import { asError, type FerryError } from '../../base/index.ts';
import { type Control, END, LOG, MISSING, nextRequest, obeys, RUN, Word } from './control-words.ts';
import { type WorkloadFault, workloadError } from './errors.ts';
import type { FromVcpu, SharedMachine, VcpuStart } from './messages.ts';

/** Starting includes writing the initial memory, which gets time for this rate on top. */
const DEADLINES = { startMs: 30_000, obeyMs: 10_000 };
const FILL_BYTES_PER_MS_MIN = 50_000;

interface Waiter {
  readonly request: number;
  readonly resolve: () => void;
  readonly reject: (error: FerryError<WorkloadFault>) => void;
}

export class Vcpus {
  readonly #control: Control;
  readonly #threads: Worker[] = [];
  readonly #waiters = new Set<Waiter>();
  readonly #died: (error: FerryError<WorkloadFault>) => void;
  /** A vCPU obeys within a turn, some 50 us, if the host gives it a processor at all. */
  readonly #obeyDeadlineMs: number;
  #death: FerryError<WorkloadFault> | undefined;
  #ending = false;
  /** Called when a vCPU waits for a page (words[FAULT + vcpu]); it may have gone on by then. */
  faulted: (vcpu: number) => void = () => {};

  private constructor(control: Control, died: (error: FerryError<WorkloadFault>) => void, obeyDeadlineMs: number) {
    this.#control = control;
    this.#died = died;
    this.#obeyDeadlineMs = obeyDeadlineMs;
  }

  /**
   * Starts all threads; resolves when every vCPU is parked and, with `fill`, has written its initial memory. `died` is called
   * once if a thread ends by itself later. Throws WORKLOAD_VCPU_SILENT, WORKLOAD_VCPU_DIED.
   */
  static async start(
    machine: SharedMachine,
    control: Control,
    fill: boolean,
    died: (error: FerryError<WorkloadFault>) => void,
    deadlines = DEADLINES,
  ): Promise<Vcpus> {
    const vcpus = new Vcpus(control, died, deadlines.obeyMs);
    const deadlineMs = deadlines.startMs + (fill ? machine.ramBytes / FILL_BYTES_PER_MS_MIN : 0);
    for (let vcpu = 0; vcpu < machine.vcpuCount; vcpu++) vcpus.#spawn({ machine, vcpu, fill });
    try {
      await vcpus.#request(0, deadlineMs);
    } catch (error) {
      await vcpus.end();
      throw error;
    }
    return vcpus;
  }

  #spawn(start: VcpuStart): void {
    const thread = new Worker(new URL('./vcpu-thread.js', import.meta.url), {
      name: `vcpu${start.vcpu}`,
      workerData: start,
      execArgv: [],
      // A vCPU allocates next to nothing; without limits each thread would keep a young generation of its own size.
      resourceLimits: { maxYoungGenerationSizeMb: 1, maxOldGenerationSizeMb: 16 },
    });
    thread.on('message', ({ kind }: FromVcpu) => {
      if (kind === 'fault') this.faulted(start.vcpu);
      else this.#settle();
    });
    thread.on('error', (error) => this.#lost(start.vcpu, error));
    thread.on('exit', () => this.#lost(start.vcpu));
    this.#threads.push(thread);
  }

  get #current(): number {
    return Atomics.load(this.#control.words, Word.REQUEST);
  }

  /** Every vCPU runs from now on; does not wait for it. */
  run(): void {
    this.#publish(this.#current | RUN);
  }

  /** Resolves when no vCPU touches memory any more. */
  park(): Promise<void> {
    return this.#request(this.#current & ~RUN, this.#obeyDeadlineMs);
  }

  /** Resolves when every store of every vCPU is logged (`on`), or none. */
  log(on: boolean): Promise<void> {
    return this.#request(on ? this.#current | LOG : this.#current & ~LOG, this.#obeyDeadlineMs);
  }

  /** Resolves when every vCPU looks whether a page is there before it touches it (`on`), or none does. */
  pagesMayBeAbsent(on: boolean): Promise<void> {
    return this.#request(on ? this.#current | MISSING : this.#current & ~MISSING, this.#obeyDeadlineMs);
  }

  throttle(percentage: number): void {
    Atomics.store(this.#control.words, Word.THROTTLE_PERCENT, percentage);
    this.#publish(this.#current);
  }

  /** Ends all threads, whatever they do. Never throws. */
  async end(): Promise<void> {
    this.#ending = true;
    this.#publish(END);
    await Promise.allSettled(this.#threads.map((thread) => thread.terminate()));
    this.#threads.length = 0;
  }

  /** Makes the bits of `bits` the newest request and wakes every vCPU. */
  #publish(bits: number): number {
    const request = nextRequest(this.#current, bits & (RUN | LOG | END | MISSING));
    Atomics.store(this.#control.words, Word.REQUEST, request);
    Atomics.notify(this.#control.words, Word.REQUEST);
    // Those that wait for a page look at the request too.
    for (let vcpu = 0; vcpu < this.#threads.length; vcpu++) {
      if (Atomics.exchange(this.#control.words, Word.FAULT + vcpu, 0) !== 0) {
        Atomics.notify(this.#control.words, Word.FAULT + vcpu);
      }
    }
    return request;
  }

  #request(bits: number, deadlineMs: number): Promise<void> {
    const request = this.#publish(bits);
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        const vcpus = this.#silent(request);
        const fault: WorkloadFault = { code: 'WORKLOAD_VCPU_SILENT', vcpus, deadlineMs };
        waiter.reject(workloadError(fault, `vCPUs ${vcpus.join(', ')} have not answered for ${deadlineMs} ms`));
      }, deadlineMs);
      const waiter: Waiter = {
        request,
        resolve: () => {
          this.#forget(waiter, timer);
          resolve();
        },
        reject: (error) => {
          this.#forget(waiter, timer);
          reject(error);
        },
      };
      this.#waiters.add(waiter);
      this.#settle();
    });
  }

  #forget(waiter: Waiter, timer: NodeJS.Timeout): void {
    clearTimeout(timer);
    this.#waiters.delete(waiter);
  }

  #silent(request: number): number[] {
    const acknowledged = (vcpu: number) => Atomics.load(this.#control.words, Word.ACKNOWLEDGED + vcpu);
    return this.#threads.flatMap((_, vcpu) => (obeys(acknowledged(vcpu), request) ? [] : [vcpu]));
  }

  #settle(): void {
    for (const waiter of this.#waiters) {
      if (this.#death !== undefined) waiter.reject(this.#death);
      else if (this.#silent(waiter.request).length === 0) waiter.resolve();
    }
  }

  #lost(vcpu: number, cause?: unknown): void {
    if (this.#ending || this.#death !== undefined) return;
    const why = cause === undefined ? undefined : asError(cause);
    this.#death = workloadError({ code: 'WORKLOAD_VCPU_DIED', vcpu }, `the thread of vCPU ${vcpu} has ended`, why);
    this.#settle();
    this.#died(this.#death);
  }
}
