/**
 * checkpoint: a machine that does not run, in a mapped-ram file. `CheckpointWriter` is the destination that fills one, `CheckpointReader`
 * the source that gives it back. The format is QEMU's: either end of it may be QEMU >= 9.0 itself.
 */
export type { CheckpointError, CheckpointFault } from './errors.ts';
export { type CheckpointOptions, CheckpointReader } from './reader.ts';
export { CheckpointWriter } from './writer.ts';
