/**
 * One vCPU: runs its program between two requests, at its pace, and keeps the guest's own record of when it could not run.
 *
 * Time is cut into turns: a turn is at most TURN_OPERATIONS operations, and between two turns the vCPU looks at the request word.
 * So a stop takes effect within one turn, at an operation's end. All sleeping is `Atomics.wait` on that word: a request ends it.
 */
import {
  type Control,
  controlOf,
  END,
  GAP_NOTED_NS,
  LOG,
  loadParameters,
  MISSING,
  REGISTERS,
  Register,
  RUN,
  Word,
} from './control-words.ts';
import { hostClock } from './host-clock.ts';
import { type Chunks, chunksOf, type Layout, layoutOf } from './layout.ts';
import type { FromVcpu, VcpuStart } from './messages.ts';
import { absentPage, fillOwnPages, runnableOperations, runOperations } from './operations.ts';
import { type Program, programOf } from './program.ts';

/** Some 50 us of work at full speed. */
const TURN_OPERATIONS = 512;
/** A paced vCPU sleeps at least this long, so that it does not wake for every single operation. */
const NAP_NS = 1_000_000;
/** A paced vCPU that was late catches up with what it missed in this time, not more. */
const CATCH_UP_NS = 100_000_000;
/** The throttle takes its share after each slice of this length, as QEMU's auto-converge does (10 ms). */
const SLICE_NS = 10_000_000;

const ACKNOWLEDGED: FromVcpu = { kind: 'acknowledged' };
const FAULT: FromVcpu = { kind: 'fault' };

export class Vcpu {
  readonly #start: VcpuStart;
  readonly #tell: (message: FromVcpu) => void;
  readonly #control: Control;
  readonly #layout: Layout;
  readonly #chunks: Chunks;
  readonly #dirtyLog: Int32Array;
  readonly #present: Int32Array;
  readonly #clock = hostClock();
  readonly #registers: Float64Array;

  #program: Program;
  #request = 0;
  #operations = 0;
  #accumulator = 0;
  /** Operations the pace allows now. */
  #credit = 0;
  #creditedAt = 0;
  #sliceStart = 0;
  /** From when on the vCPU wants to run. */
  #readyAt = 0;

  constructor(start: VcpuStart, tell: (message: FromVcpu) => void) {
    const { machine, vcpu } = start;
    this.#start = start;
    this.#tell = tell;
    this.#control = controlOf(machine.control);
    this.#layout = layoutOf(machine.ramBytes);
    this.#chunks = chunksOf(this.#layout, machine.memory);
    this.#dirtyLog = new Int32Array(machine.dirtyLog);
    this.#present = new Int32Array(machine.present);
    this.#registers = this.#control.registers.subarray(vcpu * REGISTERS, (vcpu + 1) * REGISTERS);
    this.#program = this.#loadProgram();
  }

  /** Returns when asked to end. */
  run(): void {
    if (this.#start.fill) fillOwnPages(this.#program, this.#chunks);
    const { words } = this.#control;
    while ((this.#request & END) === 0) {
      const request = Atomics.load(words, Word.REQUEST);
      if (request !== this.#request) this.#obey(request);
      else if ((request & RUN) === 0) Atomics.wait(words, Word.REQUEST, request);
      else this.#turn();
    }
  }

  #obey(request: number): void {
    const ran = (this.#request & RUN) !== 0;
    const runs = (request & RUN) !== 0;
    this.#request = request;
    if (ran && !runs) this.#park();
    if (!ran && runs) this.#unpark();
    this.#sliceStart = this.#clock();
    Atomics.store(this.#control.words, Word.ACKNOWLEDGED + this.#start.vcpu, request);
    this.#tell(ACKNOWLEDGED);
  }

  #park(): void {
    this.#registers[Register.OPERATIONS] = this.#operations;
    this.#registers[Register.ACCUMULATOR] = this.#accumulator;
    this.#registers[Register.QUIET_SINCE] = Math.min(this.#readyAt, this.#clock());
  }

  #unpark(): void {
    this.#program = this.#loadProgram();
    this.#operations = this.#registers[Register.OPERATIONS]!;
    this.#accumulator = this.#registers[Register.ACCUMULATOR]!;
    const now = this.#clock();
    const quietSince = this.#registers[Register.QUIET_SINCE]!;
    if (quietSince > 0) {
      // Never negative: the clocks of two threads differ by microseconds, and the time may have come over the wire.
      const gapNs = Math.max(0, now - quietSince);
      this.#registers[Register.LAST_STOP_GAP] = gapNs;
      this.#noteGap(gapNs);
    }
    this.#readyAt = now;
    this.#creditedAt = now;
    this.#credit = 0;
  }

  #loadProgram(): Program {
    const { vcpu, machine } = this.#start;
    return programOf(loadParameters(this.#control), this.#layout, vcpu, machine.vcpuCount);
  }

  #turn(): void {
    const now = this.#tick();
    const throttle = Atomics.load(this.#control.words, Word.THROTTLE_PERCENT);
    if (throttle > 0 && now - this.#sliceStart >= SLICE_NS) {
      // Not wished for by the guest: it stays ready, so the throttle's gaps are gaps; but it earns no credit.
      this.#sleep(((now - this.#sliceStart) * throttle) / (100 - throttle));
      this.#sliceStart = this.#tick();
      this.#creditedAt = this.#sliceStart;
      return;
    }
    const rate = this.#program.pattern === 'idle' ? 0 : this.#control.rate[0]!;
    if (rate === 0) {
      this.#readyAt = Infinity;
      this.#sleep(Infinity);
      return;
    }
    const allowed = this.#allowed(rate, now);
    if (allowed === 0) {
      const napNs = Math.max(NAP_NS, (1 - this.#credit) / rate);
      this.#readyAt = now + napNs;
      this.#sleep(napNs);
      return;
    }
    const count = this.#runnable(allowed);
    const log = (this.#request & LOG) === 0 ? undefined : this.#dirtyLog;
    this.#accumulator = runOperations(this.#program, this.#chunks, log, this.#operations, count, this.#accumulator);
    this.#operations += count;
    this.#registers[Register.OPERATIONS] = this.#operations;
    if (count < allowed) {
      this.#credit += allowed - count;
      this.#awaitPage();
    }
    this.#tick();
  }

  /** Operations in front of the first that needs an absent page. */
  #runnable(count: number): number {
    if ((this.#request & MISSING) === 0) return count;
    return runnableOperations(this.#program, this.#present, this.#operations, count);
  }

  /**
   * Sleeps until the page is there that the next operation needs, or a request has come. Nobody is missed: this side first stores what it waits
   * for, then looks whether it is there and whether there is a request; the machine first places the page, or publishes the request, then
   * looks who waits. All of it is sequentially consistent, so one of the two sees the other.
   */
  #awaitPage(): void {
    const { words } = this.#control;
    const at = Word.FAULT + this.#start.vcpu;
    const page = absentPage(this.#program, this.#present, this.#operations);
    if (page < 0) return;
    this.#registers[Register.FAULT_SINCE] = this.#clock();
    Atomics.store(words, at, page + 1);
    const stillAbsent = absentPage(this.#program, this.#present, this.#operations) === page;
    if (stillAbsent && Atomics.load(words, Word.REQUEST) === this.#request) {
      this.#tell(FAULT);
      while (Atomics.load(words, at) === page + 1) Atomics.wait(words, at, page + 1);
    }
    Atomics.store(words, at, 0);
  }

  /** Operations of this turn, taken from the credit. */
  #allowed(rate: number, now: number): number {
    if (rate === Infinity) return TURN_OPERATIONS;
    const creditMax = Math.max(1, rate * CATCH_UP_NS);
    this.#credit = Math.min(creditMax, this.#credit + (now - this.#creditedAt) * rate);
    this.#creditedAt = now;
    const count = Math.min(TURN_OPERATIONS, Math.floor(this.#credit));
    this.#credit -= count;
    return count;
  }

  #sleep(ns: number): void {
    Atomics.wait(this.#control.words, Word.REQUEST, this.#request, ns / 1e6);
  }

  /** The vCPU is awake: notes how long it could not run though it was ready. */
  #tick(): number {
    const now = this.#clock();
    this.#noteGap(now - this.#readyAt);
    this.#readyAt = now;
    return now;
  }

  #noteGap(gapNs: number): void {
    const registers = this.#registers;
    if (gapNs > registers[Register.LONGEST_GAP]!) registers[Register.LONGEST_GAP] = gapNs;
    if (gapNs > GAP_NOTED_NS) registers[Register.GAPS]! += 1;
  }
}
