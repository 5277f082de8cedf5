/** machine: what is migrated. The contracts, the embedded machine (workload/) and the checkpoint machine (checkpoint/). */
export * from './checkpoint/index.ts';
export * from './machine.ts';
export * from './shared-ram.ts';
export * from './workload/index.ts';
