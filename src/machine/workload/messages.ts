/** Everything that crosses the border of a workload thread. What vCPUs are asked to do crosses in shared words: they never read messages. */
import type { ProgramParameters } from './program.ts';
import type { Verdict } from './verify-pages.ts';

/** Memory of the machine, as every thread gets it. */
export interface SharedMachine {
  readonly ramBytes: number;
  readonly vcpuCount: number;
  /** In the order of the layout's blocks. */
  readonly memory: readonly SharedArrayBuffer[];
  readonly dirtyLog: SharedArrayBuffer;
  /** One bit a flat page: it is there. Looked at only when pages may be absent. */
  readonly present: SharedArrayBuffer;
  readonly control: SharedArrayBuffer;
}

export interface VcpuStart {
  readonly machine: SharedMachine;
  readonly vcpu: number;
  /** Write the initial content of the vCPU's pages before the first acknowledgement. */
  readonly fill: boolean;
}

/** The facts are in shared memory; this says that they are worth a look. */
export type FromVcpu = { readonly kind: 'acknowledged' } | { readonly kind: 'fault' };

export interface VerifierStart {
  readonly machine: SharedMachine;
  readonly parameters: ProgramParameters;
  readonly vcpus: readonly number[];
}

export type FromVerifier = { readonly kind: 'verified'; readonly verdict: Verdict };
