/**
 * The one page of shared memory through which the machine and its vCPUs talk, and who may write what:
 *
 *     words[REQUEST]          machine: what all vCPUs have to do, see `request`; they sleep on this word
 *     words[PROGRAM ...]      machine, while all vCPUs are parked: the program's parameters
 *     words[THROTTLE_PERCENT] machine, any time
 *     words[ACKNOWLEDGED + v] vCPU v: the last request it obeys
 *     words[FAULT + v]        vCPU v: the flat page that it waits for, plus 1, on which word it then sleeps; machine: 0 when it shall look again
 *     rate[0]                 machine, while all vCPUs are parked
 *     registers[v * ...]      vCPU v while it runs, the machine while v is parked
 *
 * A request is complete when every vCPU has acknowledged it or a later one. A vCPU stores its acknowledgement (sequentially
 * consistent) after its last store to memory, dirty log and registers, so whoever has loaded the acknowledgement of a stop sees
 * all that the vCPU ever did.
 */
import { PATTERNS, type ProgramParameters } from './program.ts';

export const VCPUS_MAX = 64;

export const Word = {
  REQUEST: 0,
  THROTTLE_PERCENT: 1,
  SEED: 2,
  PATTERN: 3,
  FILL_PPM: 4,
  ACKNOWLEDGED: 64,
  FAULT: 128,
} as const;

const WORDS = Word.FAULT + VCPUS_MAX;

/** Registers of a vCPU: float64 each, one cache line a vCPU. Times are ns of the host's monotonic clock, 0 = unknown. */
export const Register = {
  /** Operations done; exact below 2^53. */
  OPERATIONS: 0,
  /** int32 */
  ACCUMULATOR: 1,
  /** Since when the vCPU has wanted to run and could not; set when it parks. */
  QUIET_SINCE: 2,
  /** Longest time it ever wanted to run and could not, ns. */
  LONGEST_GAP: 3,
  /** The same over the last stop only: the downtime as the guest saw it, ns. */
  LAST_STOP_GAP: 4,
  /** Gaps longer than GAP_NOTED_NS. */
  GAPS: 5,
  /** When it began to wait for the page of FAULT. */
  FAULT_SINCE: 6,
} as const;

export const REGISTERS = 8;
export const GAP_NOTED_NS = 10_000_000;

const RATE_AT = WORDS * 4;
const REGISTERS_AT = RATE_AT + 64;

export interface Control {
  readonly shared: SharedArrayBuffer;
  readonly words: Int32Array;
  /** [0]: operations per ns of each vCPU; Infinity = as fast as it can. */
  readonly rate: Float64Array;
  readonly registers: Float64Array;
}

export function controlOf(shared = new SharedArrayBuffer(REGISTERS_AT + VCPUS_MAX * REGISTERS * 8)): Control {
  return {
    shared,
    words: new Int32Array(shared, 0, WORDS),
    rate: new Float64Array(shared, RATE_AT, 1),
    registers: new Float64Array(shared, REGISTERS_AT, VCPUS_MAX * REGISTERS),
  };
}

/** Request word: bit 0 run, bit 1 log dirty pages, bit 2 end the thread, bit 3 pages may be absent; bits 4..30 the request's number, counting up. */
export const RUN = 1;
export const LOG = 2;
export const END = 4;
export const MISSING = 8;
const NUMBER_SHIFT = 4;

/** The request after `previous` with the given bits. Numbers do not wrap in practice: 2^27 requests. */
export function nextRequest(previous: number, bits: number): number {
  return (((previous >>> NUMBER_SHIFT) + 1) << NUMBER_SHIFT) | bits;
}

export function obeys(acknowledged: number, request: number): boolean {
  return acknowledged >>> NUMBER_SHIFT >= request >>> NUMBER_SHIFT;
}

export function storeParameters(control: Control, parameters: ProgramParameters): void {
  control.words[Word.SEED] = parameters.seed | 0;
  control.words[Word.PATTERN] = PATTERNS.indexOf(parameters.pattern);
  control.words[Word.FILL_PPM] = parameters.fillPpm;
}

export function loadParameters(control: Control): ProgramParameters {
  return {
    seed: control.words[Word.SEED]! >>> 0,
    pattern: PATTERNS[control.words[Word.PATTERN]!]!,
    fillPpm: control.words[Word.FILL_PPM]!,
  };
}
