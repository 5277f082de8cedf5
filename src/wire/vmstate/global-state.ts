/**
 * Section `globalstate`, version 1, 104 bytes: what the destination's guest shall do. @spec qemu migration/global_state.c; qemu-wire 1.6.
 * Before 8.2 the last 68 bytes belonged to a run state name of 100 bytes, NUL padded: they read as "not suspended".
 */

import { type StateOf, vmstate } from './description.ts';
import { text, u8, u32, unused } from './field.ts';

export const globalState = vmstate({
  name: 'globalstate',
  version: 1,
  fields: {
    /** Length of the run state's name with its NUL; QEMU does not look at it. */
    size: u32,
    /** QEMU's RunState name; `running` starts the guest, `suspended` leaves it asleep until something wakes it. */
    runstate: text(32),
    /** Whether the next one says anything. */
    has_vm_was_suspended: u8,
    /** The guest sleeps, and is stopped as well: `cont` makes it sleep on. */
    vm_was_suspended: u8,
    unused: unused(66, 'buffer'),
  },
});

/** What section `globalstate` says. */
export type GlobalState = StateOf<typeof globalState>;

/** `suspended`: as `vm_was_suspended`. */
export function globalStateOf(runstate: string, suspended = false): GlobalState {
  const flag = suspended ? 1 : 0;
  return { size: runstate.length + 1, runstate, has_vm_was_suspended: flag, vm_was_suspended: flag };
}

/** Whether the guest sleeps (ACPI S3), stopped or not. */
export function isSuspended({ runstate, vm_was_suspended }: GlobalState): boolean {
  return runstate === 'suspended' || vm_was_suspended !== 0;
}
