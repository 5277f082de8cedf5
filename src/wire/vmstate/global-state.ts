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
    /** QEMU's RunState name; `running` starts the guest. */
    runstate: text(32),
    has_vm_was_suspended: u8,
    vm_was_suspended: u8,
    unused: unused(66, 'buffer'),
  },
});

/** What section `globalstate` says. */
export type GlobalState = StateOf<typeof globalState>;

export function globalStateOf(runstate: string): GlobalState {
  return { size: runstate.length + 1, runstate, has_vm_was_suspended: 0, vm_was_suspended: 0 };
}
