import { FerryError } from '../../base/index.ts';
import type { RunState } from '../machine.ts';

export type WorkloadFault =
  /** An option of `createWorkload` is out of its range. */
  | { readonly code: 'WORKLOAD_OPTION'; readonly option: string; readonly found: string }
  /** The operation is not possible in this run state. */
  | { readonly code: 'WORKLOAD_RUN_STATE'; readonly operation: string; readonly runState: RunState }
  /** vCPUs that have not done what was asked of them in time. */
  | { readonly code: 'WORKLOAD_VCPU_SILENT'; readonly vcpus: readonly number[]; readonly deadlineMs: number }
  /** A vCPU's thread has ended by itself. */
  | { readonly code: 'WORKLOAD_VCPU_DIED'; readonly vcpu: number }
  /** RAM blocks of the stream are not those of this machine; sizes in bytes, undefined = no such block. */
  | {
      readonly code: 'WORKLOAD_RAM_BLOCKS';
      readonly blocks: readonly {
        readonly idstr: string;
        readonly own: number | undefined;
        readonly announced: number | undefined;
      }[];
    }
  | { readonly code: 'WORKLOAD_CONFIGURATION'; readonly field: string; readonly own: string; readonly found: string }
  | { readonly code: 'WORKLOAD_DEVICE_UNKNOWN'; readonly idstr: string; readonly instance: number }
  /** A device's state is well formed but not one this machine can be in. */
  | {
      readonly code: 'WORKLOAD_DEVICE_STATE';
      readonly idstr: string;
      readonly instance: number;
      readonly field: string;
      readonly found: string;
    }
  /** The stream has ended without the state of these devices. */
  | { readonly code: 'WORKLOAD_DEVICES_MISSING'; readonly devices: readonly string[] };

export function workloadError(fault: WorkloadFault, message: string, cause?: unknown): FerryError<WorkloadFault> {
  return new FerryError(fault, message, cause);
}
